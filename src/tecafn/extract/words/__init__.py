"""What is said in a clip and when: transcripts of any kind, or speech recognition."""

from tecafn.extract.words.reading import Transcript, read_words
from tecafn.extract.words.speech import Span
from tecafn.extract.words.word import Utterance, Word, utterances

__all__ = ["Span", "Transcript", "Utterance", "Word", "read_words", "utterances"]
