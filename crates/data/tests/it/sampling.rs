//! What a sample holds.

use crate::lab::Lab;

pub const SHOP: &str = include_str!("shop.sql");

pub const CONFIG: &str = r#"
sample:
  root: { table: people, rate: 20%, always: ["handle = 'p7'"] }
  tables:
    items: { via: seller }
    people: { favourite: null }
    outbox: none
    flags: none
  mask:
    people.email: email
    people.phone: phone
    people.handle: handle
    votes.voter: handle
    people.profile: json
    people.last_ip: ip
    people.password_hash: password
    people.api_key: secret
    people.born: date
    reviews.body: text
"#;

/// Orphans under any foreign key, by looking.
const ORPHANS: &str = r#"
SELECT concat_ws(' ',
    (SELECT 'favourite' FROM people c WHERE favourite IS NOT NULL AND NOT EXISTS (SELECT FROM items p WHERE p.id = c.favourite) LIMIT 1),
    (SELECT 'friend' FROM people c WHERE friend IS NOT NULL AND NOT EXISTS (SELECT FROM people p WHERE p.id = c.friend) LIMIT 1),
    (SELECT 'seller' FROM items c WHERE NOT EXISTS (SELECT FROM people p WHERE p.id = c.seller) LIMIT 1),
    (SELECT 'parent' FROM items c WHERE parent IS NOT NULL AND NOT EXISTS (SELECT FROM items p WHERE p.id = c.parent) LIMIT 1),
    (SELECT 'review' FROM votes c WHERE item IS NOT NULL AND NOT EXISTS (SELECT FROM reviews p WHERE (p.item, p.number) = (c.item, c.number)) LIMIT 1),
    (SELECT 'voter' FROM votes c WHERE NOT EXISTS (SELECT FROM people p WHERE p.handle = c.voter) LIMIT 1),
    (SELECT 'visit' FROM visits c WHERE NOT EXISTS (SELECT FROM items p WHERE p.id = c.item) LIMIT 1),
    (SELECT 'event' FROM events c WHERE person IS NOT NULL AND NOT EXISTS (SELECT FROM people p WHERE p.id = c.person) LIMIT 1))"#;

#[tokio::test]
async fn a_sample_is_whole_and_smaller() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let report = lab.sample(CONFIG).await.expect("the sample is taken");
    assert_eq!(lab.value(&lab.target, ORPHANS).await, "");
    let people: u32 =
        lab.value(&lab.target, "SELECT count(*)::text FROM people").await.parse().unwrap();
    assert!((60..400).contains(&people), "{people} of 400 people");
    let rows = "SELECT sum(n)::text FROM (SELECT count(*) n FROM people UNION ALL
        SELECT count(*) FROM items UNION ALL SELECT count(*) FROM reviews UNION ALL
        SELECT count(*) FROM votes UNION ALL SELECT count(*) FROM follows UNION ALL
        SELECT count(*) FROM countries UNION ALL SELECT count(*) FROM \"Billing\".\"Order; Lines\"
        UNION ALL SELECT count(*) FROM visits UNION ALL SELECT count(*) FROM events) x";
    assert_eq!(lab.value(&lab.target, rows).await, report.rows.to_string());
    // Triggers did not fire, what must not come is not there, reference data is whole.
    assert_eq!(lab.value(&lab.target, "SELECT count(*)::text FROM outbox").await, "0");
    assert_eq!(lab.value(&lab.target, "SELECT count(*)::text FROM countries").await, "2");
    let pinned = "SELECT count(*)::text FROM people WHERE id = 7";
    assert_eq!(lab.value(&lab.target, pinned).await, "1");
    let view = "SELECT (SELECT sum(n) FROM best)::text = (SELECT count(*) FROM reviews)::text";
    assert_eq!(lab.value(&lab.target, &format!("SELECT ({view})::text")).await, "true");
    // Rows that broke an unchecked key lost only the reference; all keys are checked here.
    let unchecked = "SELECT count(*)::text FROM pg_constraint WHERE NOT convalidated";
    assert_eq!(lab.value(&lab.target, unchecked).await, "0");
    // New rows do not meet copied ones.
    lab.execute(
        &lab.target,
        "INSERT INTO items (seller, title) SELECT id, 'new' FROM people LIMIT 1",
    )
    .await;
    lab.end().await;
}

#[tokio::test]
async fn a_chosen_row_brings_all_that_belongs_to_it() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    lab.sample(CONFIG).await.expect("the sample is taken");
    for of_seven in [
        "SELECT count(*)::text FROM items WHERE seller = 7",
        "SELECT count(*)::text FROM reviews r JOIN items i ON i.id = r.item WHERE i.seller = 7",
        "SELECT count(*)::text FROM visits v JOIN items i ON i.id = v.item WHERE i.seller = 7",
        "SELECT count(*)::text FROM \"Billing\".\"Order; Lines\" WHERE \"user\" = 7",
    ] {
        let source = lab.value(&lab.source, of_seven).await;
        assert_ne!(source, "0");
        assert_eq!(lab.value(&lab.target, of_seven).await, source, "{of_seven}");
    }
    lab.end().await;
}

#[tokio::test]
async fn the_same_rows_come_again_and_a_higher_rate_keeps_them() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let items = "SELECT string_agg(id::text, ',' ORDER BY id) FROM items WHERE seller IN
        (SELECT seller FROM items GROUP BY 1 HAVING count(*) >= 3)";
    lab.sample(CONFIG).await.expect("the sample is taken");
    let first = lab.value(&lab.target, items).await;
    lab.execute(
        &lab.source,
        "INSERT INTO people (handle, email, profile, password_hash)
         SELECT 'n' || i, 'n' || i || '@mail.example', '{}', 'x' FROM generate_series(1, 50) i",
    )
    .await;
    lab.sample(CONFIG).await.expect("the sample is taken again");
    assert_eq!(lab.value(&lab.target, items).await, first);
    lab.sample(&CONFIG.replace("20%", "45%")).await.expect("a larger sample is taken");
    let larger =
        lab.value(&lab.target, "SELECT string_agg(id::text, ',' ORDER BY id) FROM items").await;
    let larger: Vec<&str> = larger.split(',').collect();
    assert!(first.split(',').all(|id| larger.contains(&id)));
    lab.end().await;
}

#[tokio::test]
async fn nothing_that_is_masked_is_found_in_the_target() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    lab.sample(CONFIG).await.expect("the sample is taken");
    for (what, originals) in [
        ("people::text", r"@mail\.example|@spare\.example|\+44 20|10\.0\.[01]\.|key_|dark.*@spare"),
        ("reviews::text", r"@mail\.example"),
    ] {
        let table = what.split("::").next().unwrap();
        let sql =
            format!("SELECT string_agg({what}, '; ') FROM {table} WHERE {what} ~ '{originals}'");
        assert_eq!(lab.value(&lab.target, &sql).await, "");
    }
    // What follows from a masked value follows from the fake.
    let hosts = "SELECT string_agg(DISTINCT email_host, ',') FROM people";
    assert_eq!(lab.value(&lab.target, hosts).await, "mail.invalid");
    // A known password, equal handles at both ends of a key, and documents keep the rest.
    let password = "SELECT string_agg(DISTINCT left(password_hash, 4), ',') FROM people";
    assert_eq!(lab.value(&lab.target, password).await, "$2b$");
    let themes = "SELECT string_agg(DISTINCT profile->>'theme', ',') FROM people";
    assert_eq!(lab.value(&lab.target, themes).await, "dark");
    lab.end().await;
}

#[tokio::test]
async fn to_read_the_source_is_enough() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    // Who may only read, and has nothing else.
    let role = format!("reader-{}", lab.source);
    lab.execute(
        &lab.source,
        &format!(
            "CREATE ROLE \"{role}\" LOGIN; GRANT USAGE ON SCHEMA public, \"Billing\" TO \"{role}\";
             GRANT SELECT ON ALL TABLES IN SCHEMA public, \"Billing\" TO \"{role}\";
             GRANT SELECT ON ALL SEQUENCES IN SCHEMA public, \"Billing\" TO \"{role}\"",
        ),
    )
    .await;
    let config = shiplap_data::config::Config::parse(CONFIG).unwrap();
    let source = lab.server_as(&lab.source, &role);
    let job = shiplap_data::app::Job {
        source: &source,
        config: &config,
        secret: crate::lab::KEY,
        sessions: 2,
        keys_at_once: 1_000,
        listener: &|_| (),
    };
    shiplap_data::app::sample(&job, &lab.server(&lab.target)).await.expect("SELECT is enough");
    let rows = "SELECT count(*)::text FROM people";
    assert_ne!(lab.value(&lab.target, rows).await, "0");
    lab.execute(&lab.source, &format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).await;
    lab.end().await;
}

#[tokio::test]
async fn what_was_masked_and_stands_elsewhere_is_found_before_the_swap() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    // One of the texts that nobody looked at holds what is masked where it is known to be.
    lab.execute(&lab.source, "UPDATE items SET title = 'ask p7@mail.example' WHERE seller = 7")
        .await;
    let reviewed = format!("{CONFIG}  reviewed: [items.title]\n");
    let refused = lab.sample(&reviewed).await;
    let Err(shiplap_data::app::Problem::Leaks(columns)) = refused else { panic!("{refused:?}") };
    assert_eq!(columns.len(), 1, "{columns:?}");
    assert_eq!(columns[0].0, "items.title");
    assert_eq!(lab.targets().await, "");
    lab.end().await;
}

#[tokio::test]
async fn references_that_only_the_configuration_knows_bring_rows() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let flags = r#"    flags:
      refs:
        - { when: "kind = 'item'", column: "target::int", to: items.id, policy: via }
        - { when: "kind = 'person'", column: "target::int", to: people.id, policy: via }
"#;
    lab.sample(&CONFIG.replace("    flags: none\n", flags)).await.expect("the sample is taken");
    let lost = "SELECT count(*)::text FROM flags f WHERE
        kind = 'item' AND NOT EXISTS (SELECT FROM items i WHERE i.id = f.target::int) OR
        kind = 'person' AND NOT EXISTS (SELECT FROM people p WHERE p.id = f.target::int)";
    assert_eq!(lab.value(&lab.target, lost).await, "0");
    let of_seven = "SELECT count(*)::text FROM flags WHERE kind = 'person' AND target = '7'";
    let source = lab.value(&lab.source, of_seven).await;
    assert_ne!(source, "0");
    assert_eq!(lab.value(&lab.target, of_seven).await, source);
    let all = "SELECT count(*)::int < 400 AND count(*) > 60 FROM flags";
    assert_eq!(lab.value(&lab.target, &format!("SELECT ({all})::text")).await, "true");
    lab.end().await;
}

#[tokio::test]
async fn of_each_parent_only_so_many_rows_come_and_always_the_same() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let limited = CONFIG.replace(
        "    flags: none\n",
        "    flags: none\n    visits: { via: item, limit: 2/item }\n",
    );
    lab.sample(&limited).await.expect("the sample is taken");
    let most = "SELECT max(n)::text FROM (SELECT count(*) n FROM visits GROUP BY item) x";
    assert_eq!(lab.value(&lab.target, most).await, "2");
    assert_ne!(lab.value(&lab.source, most).await, "2");
    let ids = "SELECT md5(string_agg(id::text, ',' ORDER BY id)) FROM visits";
    let first = lab.value(&lab.target, ids).await;
    lab.sample(&limited).await.expect("the sample is taken again");
    assert_eq!(lab.value(&lab.target, ids).await, first);
    lab.end().await;
}

#[tokio::test]
async fn more_keys_than_a_statement_holds_bring_the_same_rows() {
    let Some(mut lab) = Lab::with(SHOP).await else { return };
    let rows = "SELECT md5(concat(
        (SELECT string_agg(p::text, ';' ORDER BY id) FROM people p),
        (SELECT string_agg(i::text, ';' ORDER BY id) FROM items i),
        (SELECT string_agg(r::text, ';' ORDER BY item, number) FROM reviews r),
        (SELECT string_agg(v::text, ';' ORDER BY id) FROM votes v),
        (SELECT string_agg(f::text, ';' ORDER BY a, b) FROM follows f),
        (SELECT string_agg(v::text, ';' ORDER BY id, at) FROM visits v),
        (SELECT string_agg(e::text, ';' ORDER BY id) FROM events e)))";
    lab.sample(CONFIG).await.expect("the sample is taken");
    let expected = lab.value(&lab.target, rows).await;
    for keys_at_once in [200, 25] {
        lab.keys_at_once = keys_at_once;
        lab.sample(CONFIG).await.expect("the sample is taken");
        assert_eq!(lab.value(&lab.target, rows).await, expected, "{keys_at_once} at once");
    }
    lab.end().await;
}

#[tokio::test]
async fn of_rows_that_were_not_chosen_only_what_must_be_there_comes() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let stub = CONFIG.replace("  tables:", "  extra: stub\n  tables:");
    lab.sample(&stub).await.expect("the sample is taken");
    // Everybody has a birthday in the source; whoever was chosen has one here, and their items.
    let empty = "SELECT count(*)::text FROM people WHERE born IS NULL AND phone IS NULL";
    assert_eq!(lab.value(&lab.source, empty).await, "0");
    assert_ne!(lab.value(&lab.target, empty).await, "0");
    let seven = "SELECT (born IS NOT NULL AND phone IS NOT NULL)::text FROM people WHERE id = 7";
    assert_eq!(lab.value(&lab.target, seven).await, "true");
    // References of those that were not chosen still lead somewhere.
    assert_eq!(lab.value(&lab.target, ORPHANS).await, "");
    let friends = "SELECT count(*)::text FROM people WHERE born IS NULL AND friend IS NOT NULL";
    assert_ne!(lab.value(&lab.target, friends).await, "0");
    lab.end().await;
}

#[tokio::test]
async fn elements_of_arrays_whose_rows_do_not_come_are_left_out() {
    let Some(lab) = Lab::with(
        "CREATE TABLE people (id int PRIMARY KEY);
         CREATE TABLE lists (id int PRIMARY KEY, person int NOT NULL REFERENCES people,
             members bigint[], labels uuid[] NOT NULL);
         CREATE TABLE labels (id uuid PRIMARY KEY, person int NOT NULL REFERENCES people);
         INSERT INTO people SELECT generate_series(1, 200);
         INSERT INTO labels SELECT md5(n::text)::uuid, n FROM generate_series(1, 200) n;
         INSERT INTO lists SELECT n, n, CASE WHEN n % 10 > 0 THEN
             ARRAY(SELECT m FROM generate_series(n, n + 20) m) || NULL::bigint END,
             ARRAY[md5(n::text)::uuid, md5('nobody')::uuid] FROM generate_series(1, 200) n",
    )
    .await
    else {
        return;
    };
    let config = r#"
sample:
  root: { table: people, rate: 30% }
  tables:
    lists:
      via: person
      refs:
        - { column: "members[]", to: people.id, policy: prune }
        - { column: "labels[]", to: labels.id, policy: prune }
"#;
    lab.sample(config).await.expect("the sample is taken");
    // What is left is what an anti-join over the source's arrays leaves, in its order.
    let wrong = "SELECT count(*)::text FROM lists l WHERE
        EXISTS (SELECT FROM unnest(members) m
            WHERE m IS NOT NULL AND NOT EXISTS (SELECT FROM people p WHERE p.id = m))
        OR labels <> ARRAY[md5(id::text)::uuid] OR (members IS NULL) <> (id % 10 = 0)
        OR members <> ARRAY(SELECT p.id FROM people p WHERE p.id BETWEEN l.id AND l.id + 20
            ORDER BY 1) || NULL::bigint";
    assert_eq!(lab.value(&lab.target, wrong).await, "0");
    let pruned = "SELECT (count(*) > 20 AND sum(cardinality(members)) < 700)::text FROM lists";
    assert_eq!(lab.value(&lab.target, pruned).await, "true");
    let refused = lab.sample(&config.replace("policy: prune", "policy: pull")).await;
    assert!(format!("{refused:?}").contains("data/array"), "{refused:?}");
    lab.end().await;
}

#[tokio::test]
async fn the_files_that_rows_name_come_before_the_swap_and_others_go_after_it() {
    let Some(lab) = Lab::with(SHOP).await else { return };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = |path: &str| folder.path().join(path);
    for n in 1..=600 {
        std::fs::create_dir_all(at(&format!("prod/{}", n % 10))).unwrap();
        std::fs::write(at(&format!("prod/{}/{n}.png", n % 10)), n.to_string()).unwrap();
    }
    std::fs::create_dir(at("dev")).unwrap();
    let files = |rate: &str| {
        let (from, to) = (at("prod"), at("dev"));
        let config = format!(
            "{CONFIG}  files:
    - from: {from:?}
      to: {to:?}
      paths: SELECT id % 10 || '/' || id || '.png' FROM people;
"
        );
        config.replace("rate: 20%", &format!("rate: {rate}"))
    };
    let there = || {
        let folders = std::fs::read_dir(at("dev")).unwrap().flatten().filter(|e| e.path().is_dir());
        let files = folders.flat_map(|e| std::fs::read_dir(e.path()).unwrap().flatten());
        let mut names: Vec<String> = files.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names.join(" ")
    };
    let named = "SELECT string_agg(id || '.png', ' ' ORDER BY id || '.png' COLLATE \"C\")
        FROM people WHERE id <= 600";
    let report = lab.sample(&files("40%")).await.expect("the sample is taken");
    assert_eq!(there(), lab.value(&lab.target, named).await);
    assert!(report.files[0].copied > 100 && report.files[0].missing == 0, "{report:?}");
    let report = lab.sample(&files("10%")).await.expect("a smaller one is taken");
    assert_eq!(there(), lab.value(&lab.target, named).await);
    assert!(report.files[0].removed > 0 && report.files[0].copied == 0, "{report:?}");
    // A folder of somebody else is refused before anything is made.
    std::fs::remove_file(at("dev/.shiplap-vault")).unwrap();
    let refused = lab.sample(&files("10%")).await;
    assert!(format!("{refused:?}").contains("not ours"), "{refused:?}");
    assert_eq!(lab.targets().await, "target");
    lab.end().await;
}
