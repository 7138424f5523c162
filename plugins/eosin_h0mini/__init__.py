"""H0-mini and RoB: distilling with the objectives of DINO and iBOT."""

import eosin


@eosin.hookimpl
def provide_recipes():
    from .recipe import H0Mini, RobDino, RobIbot

    return [H0Mini(), RobDino(), RobIbot()]
