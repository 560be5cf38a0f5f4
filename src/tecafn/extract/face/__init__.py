"""Faces in a clip: where they are, what they do, and whose mouth moves with the voice."""

from tecafn.extract.face.measures import COLUMNS
from tecafn.extract.face.speaker import Choice, choose
from tecafn.extract.face.tracks import Faces, FaceTrack, extract

__all__ = ["COLUMNS", "Choice", "FaceTrack", "Faces", "choose", "extract"]
