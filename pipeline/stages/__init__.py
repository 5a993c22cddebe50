"""One file per stage; the file's stem is the stage's name in a spec."""
