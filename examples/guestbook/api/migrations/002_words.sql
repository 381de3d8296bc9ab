ALTER TABLE entries ADD COLUMN words integer;
