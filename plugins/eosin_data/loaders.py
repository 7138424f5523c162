"""Which loader serves which kind."""

from .aggc import Aggc
from .arvaniti import GleasonArvaniti
from .bach import Bach
from .bracs import Bracs
from .breakhis import BreakHis
from .camelyon16 import Camelyon16
from .chimera import Chimera
from .consep import Consep
from .crc import Crc
from .gleason2019 import Gleason2019
from .idc import Idc
from .mhist import Mhist
from .monusac import Monusac
from .panda import Panda
from .pcam import Pcam
from .tils import Tils
from .tp53 import Tp53

G2L = (Aggc, Bracs, BreakHis, Chimera, Gleason2019, GleasonArvaniti, Idc, Tils, Tp53)
EVA = (Bach, Camelyon16, Consep, Crc, Mhist, Monusac, Panda, Pcam)
LOADERS = {loader.kind: loader for loader in (*G2L, *EVA)}
