-- The oldest schema that a program must know to write to this store. An additive migration leaves this number as it is.
ALTER TABLE schema_version ADD COLUMN oldest_writer bigint NOT NULL DEFAULT 7;
-- What the program of an instance knows: the number of its last migration, and that of the newest code that joins bodies. Rows that a
-- living older one can't read are not written until it is gone.
ALTER TABLE instance ADD COLUMN schema bigint, ADD COLUMN builder integer;
