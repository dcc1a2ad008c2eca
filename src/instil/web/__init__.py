"""The local page of `instil ui`: a window on the files of one folder."""
