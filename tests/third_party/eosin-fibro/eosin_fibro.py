# eosin_fibro.py: a benchmark on its own table of tiles
import eosin
from eosin import metrics, probes


class FibroKnn(eosin.Benchmark):
    """Fibroadenoma or phyllodes tumour, from the 20 nearest frozen embeddings."""

    card = eosin.BenchmarkCard("fibro-knn", dataset="fibro", metric="balanced_accuracy", protocol="fibro@1")
    dataset = eosin.Manifest("fibro", mpp=0.5)  # <data>/fibro/tiles.csv: path,label,split,group

    def score(self, emb):
        train, test = emb["train"], emb["test"]
        probe = probes.knn(k=20).fit(train.X, train.y)
        return {"balanced_accuracy": metrics.balanced_accuracy(test.y, probe.predict(test.X))}


@eosin.hookimpl
def provide_benchmarks():
    return [FibroKnn()]
