//! The fakes keep what the traits promise.

mod engine {
    use std::collections::BTreeMap;

    use shiplap_model::{
        COMPOSE_NUMBER, COMPOSE_PROJECT, COMPOSE_SERVICE, CreateReplica, DEPLOYMENT, EngineNetwork,
        EngineVolume, Names,
    };
    use shiplap_testkit::contract::engine::Ground;
    use shiplap_testkit::{PROJECT, World, desired};

    const YAML: &str = r#"
services:
  api: { image: "api:v1", network_mode: none }
  linked: { image: "api:v1", networks: [lan] }
networks: { lan: {} }
"#;

    fn labels(more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let all = [(COMPOSE_PROJECT, PROJECT), (COMPOSE_NUMBER, "1"), (DEPLOYMENT, "7")];
        all.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn replica(service: &str) -> CreateReplica {
        CreateReplica {
            service: service.to_owned(),
            name: format!("{PROJECT}-{service}-1.d7"),
            base_name: format!("{PROJECT}-{service}-1"),
            number: 1,
            anonymous_volumes: BTreeMap::new(),
            labels: labels(&[(COMPOSE_SERVICE, service)]),
            publish: Vec::new(),
            names: Names::Own,
            peers: BTreeMap::new(),
        }
    }

    async fn ground(_: &str) -> Option<Ground> {
        let world = World::new();
        let desired = desired(YAML);
        world.has_images_of(&desired);
        let network = EngineNetwork {
            name: format!("{PROJECT}_lan"),
            key: "lan".to_owned(),
            spec: desired.compose.networks["lan"].clone(),
            labels: labels(&[]),
        };
        let volume = EngineVolume {
            name: format!("{PROJECT}_data"),
            key: "data".to_owned(),
            spec: Default::default(),
            labels: labels(&[]),
        };
        Some(Ground {
            engine: world.engine(),
            desired,
            api: replica("api"),
            linked: replica("linked"),
            network,
            volume,
            keep: Box::new(()),
        })
    }

    shiplap_testkit::engine_contract!(ground);
}

mod ledger {
    use shiplap_testkit::World;
    use shiplap_testkit::contract::ledger::Ground;

    async fn ground(_: &str) -> Option<Ground> {
        let world = World::new();
        let other = world.another_ledger();
        Some(Ground { ledger: world.ledger(), other, keep: Box::new(()) })
    }

    shiplap_testkit::ledger_contract!(ground);
}

mod orders {
    use std::time::Duration;

    use shiplap_testkit::World;
    use shiplap_testkit::contract::orders::Ground;

    async fn ground(_: &str) -> Option<Ground> {
        let ledger = World::new().ledger();
        let clock = ledger.clone();
        let pass = move |time: Duration| {
            clock.pass(time);
            std::future::ready(())
        };
        Some(Ground::new(ledger.clone(), ledger, pass, ()))
    }

    shiplap_testkit::orders_contract!(ground);
}

mod tokens {
    use shiplap_testkit::World;
    use shiplap_testkit::contract::tokens::Ground;

    async fn ground(_: &str) -> Option<Ground> {
        Some(Ground { tokens: World::new().ledger(), keep: Box::new(()) })
    }

    shiplap_testkit::tokens_contract!(ground);
}
