import eosin


@eosin.hookimpl
def provide_models():
    return [eosin.ModelCard("bad", dim=-1)]
