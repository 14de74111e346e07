-- What the process of an instance says of itself: the name of its configuration, its machine, and its version.
ALTER TABLE instance ADD COLUMN name TEXT;
ALTER TABLE instance ADD COLUMN host TEXT;
ALTER TABLE instance ADD COLUMN version TEXT;
