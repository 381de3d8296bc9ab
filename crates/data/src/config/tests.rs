use super::*;

const WHOLE: &str = r#"
sample:
  root: { table: users, rate: 10%, where: "banned_until IS NULL", always: ["handle = 'demo'"] }
  extra: stub
  max: { rows: 2_000_000, bytes: 500MB, extra: 25% }
  tables:
    posts: { via: owner_id, remix_of: null }
    follows: { via: follower_id, following_id: require }
    view_events: { via: post_id, limit: 200/post_id, rate: 50% }
    reports:
      via: [reporter_id]
      refs:
        - { when: "target_type = 'post'", column: "target_id::int", to: posts.id, policy: require }
    job_queue: none
    licenses: all
  mask:
    "*.email": email
    users.email_normalized: { derive: "lower(email)" }
    users.password_hash: { set: "x" }
    users.handle: keep
    users.bio: null
  reviewed: [posts.title]
"#;

#[test]
fn everything_of_the_section_is_read() {
    let sample = Config::parse(WHOLE).unwrap().sample;
    let root = sample.root.unwrap();
    assert_eq!((root.table.value.as_str(), root.rate.unwrap().value.share()), ("users", 0.1));
    assert_eq!(sample.max.bytes, Some(rule::Bytes(500_000_000)));
    assert_eq!(sample.max.rows, Some(2_000_000));
    assert_eq!(sample.extra, Extra::Stub);
    let posts = &sample.tables["posts"].value;
    assert_eq!(posts.via.as_ref().unwrap().value.names(), ["owner_id"]);
    assert_eq!(posts.columns["remix_of"].value.0, Policy::Null);
    let views = &sample.tables["view_events"].value;
    assert_eq!(views.limit.as_ref().unwrap().value, Limit { rows: 200, by: "post_id".into() });
    assert_eq!(
        sample.tables["reports"].value.refs[0].value.policy,
        ReferenceWord::Policy(Policy::Require)
    );
    assert_eq!(sample.tables["job_queue"].value.mode, Some(TableMode::None));
    assert_eq!(sample.mask["*.email"].value, MaskRule::Class(Some("email".into())));
    assert_eq!(sample.mask["users.bio"].value, MaskRule::Class(None));
    let derive = MaskRule::Derive { derive: "lower(email)".into() };
    assert_eq!(sample.mask["users.email_normalized"].value, derive);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let place_of = |text: &str| Config::parse(text).unwrap_err().place.map(|place| place.line);
    assert_eq!(place_of("sample:\n  roots: {}\n"), Some(2));
    assert_eq!(place_of("sample:\n  tables:\n    posts: { owner_id: pul }\n"), Some(3));
    assert_eq!(place_of("sample:\n  root:\n    table: users\n    rate: 500%\n"), Some(4));
    let message = Config::parse("sample:\n  tables:\n    a: some\n").unwrap_err().message;
    assert!(message.contains("neither `all` nor `none`"), "{message}");
}

#[test]
fn an_empty_file_is_an_empty_configuration() {
    assert!(Config::parse("").unwrap().sample.root.is_none());
}
