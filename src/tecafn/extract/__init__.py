"""From clips to features: decoding, faces, words, voice, and the store that methods train on."""
