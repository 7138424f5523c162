"""Which loader serves which kind."""

from .aggc import Aggc
from .arvaniti import GleasonArvaniti
from .bracs import Bracs
from .breakhis import BreakHis
from .chimera import Chimera
from .gleason2019 import Gleason2019
from .idc import Idc
from .tils import Tils
from .tp53 import Tp53

LOADERS = {
    loader.kind: loader for loader in (Aggc, Bracs, BreakHis, Chimera, Gleason2019, GleasonArvaniti, Idc, Tils, Tp53)
}
