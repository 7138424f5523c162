"""G2L: its protocols (k nearest neighbours and linear probing)."""

import eosin


@eosin.hookimpl
def provide_protocols():
    from .protocols import G2LKnn, G2LLinear

    return [G2LKnn(), G2LLinear()]
