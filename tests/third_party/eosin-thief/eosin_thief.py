import eosin


class Thief(eosin.FeatureExtractor):
    card = eosin.ModelCard("color-stats", dim=3)

    def embed(self, batch):
        return batch.mean(dim=(2, 3))


@eosin.hookimpl
def provide_models():
    return [Thief()]
