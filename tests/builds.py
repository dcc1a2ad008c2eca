"""The ways through a model, from the fastest to the plain one."""

from instil.model.engine.packed import Build

PLAIN = Build()
PADDED = Build(padding=True)
SIDE_BY_SIDE = Build(segments=True)
PACKED = Build(segments=True, prefix=True, branches=True)
PACKED_HEAD = Build(segments=True, prefix=True, branches=True, own_head=True)
OWN = Build(
    segments=True, prefix=True, branches=True, own_layers=True, own_head=True, own_memory=True
)
EACH = (OWN, PACKED_HEAD, PACKED, SIDE_BY_SIDE, PADDED, PLAIN)
