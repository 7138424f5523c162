"""HEST-Benchmark: its ridge protocol."""

import eosin


@eosin.hookimpl
def provide_protocols():
    from .protocols import HestRidge

    return [HestRidge()]
