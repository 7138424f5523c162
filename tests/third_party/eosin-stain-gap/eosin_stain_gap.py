# eosin_stain_gap.py: a benchmark over two views of one dataset
import eosin
from eosin import metrics, probes


class StainGap(eosin.Benchmark):
    card = eosin.BenchmarkCard("fibro-stain-gap", dataset="fibro", metric="drop", protocol="stain-gap@1")
    dataset = eosin.Manifest("fibro", mpp=0.5)

    def needs(self):
        return {"clean": eosin.Need("fibro"), "shifted": eosin.Need("fibro", view="stain-shift-0.2", readout="mean")}

    def score(self, emb):
        clean, shifted = emb["clean"], emb["shifted"]  # two Embeddings, same ids in the same order
        probe = probes.knn(k=15).fit(clean["train"].X, clean["train"].y)
        before, after = (metrics.accuracy(e["test"].y, probe.predict(e["test"].X)) for e in (clean, shifted))
        return {"drop": before - after}


@eosin.hookimpl
def provide_benchmarks():
    return [StainGap()]
