-- Fills every table of whatever schema with rows: rows(N). For tests of schemas that came without.
--
-- A column that refers to another holds one of that one's values, along chains of references; what is
-- never empty and nobody refers to holds something of its type. Constraints that cannot be guessed (checks,
-- exclusions) are dropped where they refuse a row, and rows that break a key are deleted in the end, so
-- that what is left is whole. Needs a superuser, since keys are not looked at meanwhile.

-- Where the values of a column come from, in the end: (table, column, whether it is a list's).
CREATE FUNCTION pg_temp.origin(of oid, at int2) RETURNS TABLE (tab oid, col int2) LANGUAGE sql AS $f$
  WITH RECURSIVE along (tab, col, way) AS (
      SELECT of, at, ARRAY[(of, at)::text]
    UNION ALL
      SELECT k.confrelid, k.confkey[array_position(k.conkey, a.col)], a.way || (k.confrelid, k.confkey[array_position(k.conkey, a.col)])::text
      FROM along a CROSS JOIN LATERAL (
          SELECT * FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = a.tab AND a.col = ANY (k.conkey)
          ORDER BY k.oid LIMIT 1) k
      WHERE NOT (k.confrelid, k.confkey[array_position(k.conkey, a.col)])::text = ANY (a.way))
  SELECT tab, col FROM along ORDER BY array_length(way, 1) DESC LIMIT 1
$f$;

-- An expression over n, the number of a row: a value of the type, different for each n where it can be.
CREATE FUNCTION pg_temp.sample_value(type oid, mod int4, origin text) RETURNS text LANGUAGE plpgsql AS $f$
DECLARE t pg_type; chars int := CASE WHEN mod > 4 THEN mod - 4 ELSE 40 END;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type;
  IF t.typtype = 'd' THEN
    RETURN pg_temp.sample_value(t.typbasetype, t.typtypmod, origin);
  ELSIF t.typtype = 'e' THEN
    RETURN format('(SELECT (array_agg(e ORDER BY e))[1 + n %% count(*)::int] FROM unnest(enum_range(NULL::%s)) e)', type::regtype);
  ELSIF t.typcategory = 'A' THEN
    RETURN format('ARRAY[%s]::%s', pg_temp.sample_value(t.typelem, -1, origin), type::regtype);
  END IF;
  RETURN CASE t.typname
    WHEN 'int2' THEN '(n % 32000)::int2' WHEN 'int4' THEN 'n::int4' WHEN 'int8' THEN 'n::int8'
    WHEN 'numeric' THEN '(n % 90)::numeric' WHEN 'float4' THEN 'n::float4' WHEN 'float8' THEN 'n::float8'
    WHEN 'bool' THEN '(n % 3 = 0)' WHEN 'uuid' THEN format('md5(%L || n)::uuid', origin)
    WHEN 'date' THEN '(date ''2020-01-01'' + n % 2000)'
    WHEN 'timestamp' THEN '(timestamp ''2020-01-01'' + n * interval ''1 hour'')'
    WHEN 'timestamptz' THEN '(timestamptz ''2020-01-01 00:00+00'' + n * interval ''1 hour'')'
    WHEN 'time' THEN '(time ''00:00'' + n * interval ''1 second'')' WHEN 'interval' THEN '(n * interval ''1 minute'')'
    WHEN 'json' THEN '''{"a": 1}''::json' WHEN 'jsonb' THEN '''{"a": 1}''::jsonb'
    WHEN 'bytea' THEN 'decode(md5(n::text), ''hex'')' WHEN 'inet' THEN '(inet ''10.0.0.0'' + n)'
    WHEN 'tsvector' THEN 'to_tsvector(''simple'', ''w'' || n)' WHEN 'bpchar' THEN format('left(to_hex(n), %s)::bpchar', chars)
    -- What is equal in two columns that have nothing to do with each other would look like a copy.
    WHEN 'varchar' THEN format('left(to_hex(n) || ''-%s'', %s)', md5(origin), least(chars, 20))
    WHEN 'text' THEN format('to_hex(n) || ''-%s''', left(md5(origin), 12))
    WHEN 'citext' THEN format('to_hex(n) || ''-%s''', left(md5(origin), 12))
    WHEN 'xml' THEN '''<a/>''::xml'
    ELSE 'NULL' END;
END $f$;

CREATE FUNCTION pg_temp.fill(of oid, wanted int) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE a record; columns text := ''; vals text := ''; expression text; broken text; o record; choice text;
BEGIN
  FOR a IN SELECT * FROM pg_attribute WHERE attrelid = of AND attnum > 0 AND NOT attisdropped AND attgenerated = '' LOOP
    SELECT * INTO o FROM pg_temp.origin(of, a.attnum);
    expression := pg_temp.sample_value(a.atttypid, a.atttypmod, o.tab || ':' || o.col);
    IF EXISTS (SELECT FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = of AND a.attnum = ANY (k.conkey)) THEN
      -- Skewed, so that some parents have many children; different for each column of a row.
      choice := format('(1 + (power((hashint8extended(n, %s) & 1048575) / 1048576.0, 2) * %s)::int %% %s)', a.attnum, wanted, wanted);
      expression := replace(expression, 'n', '~');
      expression := format('(SELECT %s FROM (SELECT %s AS n) pick)', replace(expression, '~', 'n'), choice);
      IF NOT a.attnotnull THEN
        expression := format('CASE WHEN hashint8extended(n, %s) & 3 > 0 THEN %s END', a.attnum + 100, expression);
      END IF;
    END IF;
    columns := columns || format(', %I', a.attname);
    vals := vals || ', ' || expression;
  END LOOP;
  FOR try IN 1..20 LOOP
    BEGIN
      EXECUTE format('INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM generate_series(1, %s) n ON CONFLICT DO NOTHING',
        of::regclass, substr(columns, 3), substr(vals, 3), wanted);
      RETURN;
    EXCEPTION WHEN check_violation OR exclusion_violation THEN
      GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
      EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', of::regclass, broken);
    END;
  END LOOP;
  RAISE EXCEPTION 'no row of % is accepted', of::regclass;
END $f$;

CREATE FUNCTION pg_temp.rows(wanted int) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE t record; k record; gone bigint := 1; n bigint;
BEGIN
  SET LOCAL session_replication_role = replica;
  FOR t IN SELECT c.oid FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND s.nspname !~ '^pg_' AND s.nspname <> 'information_schema' LOOP
    PERFORM pg_temp.fill(t.oid, wanted);
  END LOOP;
  WHILE gone > 0 LOOP
    gone := 0;
    FOR k IN SELECT c.conrelid::regclass AS child, c.confrelid::regclass AS parent,
        string_agg(format('c.%I = p.%I', a.attname, b.attname), ' AND ') AS met,
        string_agg(format('c.%I IS NOT NULL', a.attname), ' AND ') AS given
      FROM pg_constraint c CROSS JOIN unnest(c.conkey, c.confkey) u(x, y)
      JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = u.x
      JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = u.y
      WHERE c.contype = 'f' AND c.conparentid = 0 GROUP BY c.oid
    LOOP
      EXECUTE format('DELETE FROM %s c WHERE %s AND NOT EXISTS (SELECT FROM %s p WHERE %s)', k.child, k.given, k.parent, k.met);
      GET DIAGNOSTICS n = ROW_COUNT;
      gone := gone + n;
    END LOOP;
  END LOOP;
END $f$;
