"""G2L: its protocols (k nearest neighbours and linear probing) and its recipe for distillation."""

import eosin


@eosin.hookimpl
def provide_protocols():
    from .protocols import G2LKnn, G2LLinear

    return [G2LKnn(), G2LLinear()]


@eosin.hookimpl
def provide_recipes():
    from .recipe import G2L

    return [G2L()]
