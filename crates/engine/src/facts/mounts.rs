//! Facts about mounts, from the engine's four notations.

use serde_json::{Map, Value, json};
use shiplap_model::Fields;

use super::{Side, entries, is_blank, list, sorted, strings};

impl Side<'_> {
    pub(super) fn mounts(&self, fields: &mut Fields) {
        for (target, _) in entries(&self.config["Volumes"]) {
            self.mount(fields, target, json!({"type": "volume"}));
        }
        for bind in strings(&self.host["Binds"]) {
            let (target, value) = bind_line(bind);
            self.mount(fields, target, value);
        }
        for mount in list(&self.host["Mounts"]) {
            let target = mount["Target"].as_str().unwrap_or_default();
            self.mount(fields, target, structured(mount));
        }
        for (target, options) in entries(&self.host["Tmpfs"]) {
            let mut options: Vec<&str> =
                options.as_str().unwrap_or_default().split(',').filter(|o| !o.is_empty()).collect();
            options.sort_unstable();
            fields.set(format!("tmpfs.{target}"), options.join(","));
        }
    }

    fn mount(&self, fields: &mut Fields, target: &str, mut value: Value) {
        let target = match target.trim_end_matches('/') {
            "" => "/",
            trimmed => trimmed,
        };
        let is_volume = value["type"] == "volume";
        // Compose carries an anonymous volume over to the next container by its random name.
        if is_volume && value["source"].as_str().is_none_or(is_anonymous) {
            if self.image["Volumes"].get(target).is_some() {
                return;
            }
            value["source"] = Value::Null;
        }
        let parts: Map<String, Value> = entries(&value)
            .filter(|(_, part)| !is_blank(part))
            .map(|(name, part)| (name.clone(), part.clone()))
            .collect();
        fields.set(format!("volumes.{target}"), sorted(parts));
    }
}

/// `source:target:ro,z`.
fn bind_line(line: &str) -> (&str, Value) {
    let mut parts = line.splitn(3, ':');
    let source = parts.next().unwrap_or_default();
    let Some(target) = parts.next() else {
        return (source, json!({"type": "volume"}));
    };
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let mut value = json!({"type": kind, "source": source});
    for option in parts.next().unwrap_or_default().split(',') {
        match option {
            "ro" => value["read_only"] = true.into(),
            "nocopy" => value["nocopy"] = true.into(),
            "z" | "Z" => value["selinux"] = option.into(),
            "private" | "shared" | "rshared" | "slave" | "rslave" => {
                value["propagation"] = option.into();
            }
            // `rw` and `rprivate` are the defaults; consistency means nothing on Linux.
            _ => {}
        }
    }
    (target, value)
}

/// A mount in the engine's structured notation.
fn structured(mount: &Value) -> Value {
    let (bind, volume) = (&mount["BindOptions"], &mount["VolumeOptions"]);
    let propagation = match bind["Propagation"].as_str() {
        Some("rprivate") => &Value::Null,
        _ => &bind["Propagation"],
    };
    let recursive = [
        ("NonRecursive", "disabled"),
        ("ReadOnlyNonRecursive", "writable"),
        ("ReadOnlyForceRecursive", "readonly"),
    ];
    let recursive = recursive.iter().find(|(key, _)| bind[*key] == true).map(|(_, name)| *name);
    let subpath = match mount["Type"].as_str() {
        Some("image") => &mount["ImageOptions"]["Subpath"],
        _ => &volume["Subpath"],
    };
    json!({
        "type": mount["Type"],
        "source": mount["Source"],
        "read_only": mount["ReadOnly"],
        "propagation": propagation,
        "recursive": recursive,
        "nocopy": volume["NoCopy"],
        "subpath": subpath,
        "size": mount["TmpfsOptions"]["SizeBytes"],
        "mode": mount["TmpfsOptions"]["Mode"],
    })
}

/// Anonymous volumes are named by 64 hexadecimal digits.
pub(crate) fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
