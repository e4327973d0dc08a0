//! Where a model lies that is called by its name: in a folder, or in the cache of Hugging Face's own programs.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Organizations that hold models which go by a bare name as well: `bert-base-uncased` is `google-bert`'s.
const HOLDERS: [&str; 3] = ["google-bert", "distilbert", "FacebookAI"];

/// The folder of the model `name`: that of this path, else its snapshot in the cache. `key` is the setting that has the
/// name.
///
/// # Errors
/// [`Error::Weights`] if it is in neither place: where it was looked for, and what to do.
pub(crate) fn find(name: &str, key: &str) -> Result<PathBuf> {
    Cache(Cache::place(|variable| env::var_os(variable).filter(|value| !value.is_empty()))).find(name, key)
}

/// The folder that holds the models downloaded from the hub; none on a machine without a home folder.
struct Cache(Option<PathBuf>);

impl Cache {
    /// Where the cache is, by the variables that Hugging Face's programs go by.
    fn place(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let path = |name: &str| {
            let path = PathBuf::from(variable(name)?);
            // Written so in a file of settings, where no shell replaces it.
            Some(match (path.strip_prefix("~"), variable("HOME")) {
                (Ok(rest), Some(home)) => Path::new(&home).join(rest),
                _ => path,
            })
        };
        let general = || path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let home = || path("HF_HOME").or_else(|| Some(general()?.join("huggingface")));
        path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(home()?.join("hub")))
    }

    fn find(&self, name: &str, key: &str) -> Result<PathBuf> {
        let folder = Path::new(name);
        if folder.is_dir() {
            return Ok(folder.to_owned());
        }
        let wrong =
            |message: String, hint: String| Err(Error::Weights { path: folder.to_owned(), message, hint: Some(hint) });
        if folder.exists() {
            let hint = "an encoder is a folder, with config.json, weights and tokenizer in it: name that folder";
            return wrong("a file, not a folder".into(), hint.into());
        }
        if !is_model(name) {
            return wrong(
                "no such folder".into(),
                format!("{key} is the path of a Hugging Face folder, or a name on the hub, as bert-base-uncased"),
            );
        }
        let here = env::current_dir().unwrap_or_default();
        let Some(cache) = &self.0 else {
            return wrong(
                format!("no such folder in {}", here.display()),
                format!("nothing is downloaded: {key} may be the path of the folder"),
            );
        };
        let models: Vec<PathBuf> = models(name).into_iter().map(|model| cache.join(model)).collect();
        let mut partial = None;
        for model in models.iter().filter(|model| model.is_dir()) {
            match snapshot(model) {
                Some(snapshot) => return Ok(snapshot),
                None => partial = Some(model),
            }
        }
        let get = format!("nothing is downloaded: `hf download {name}` does that, or {key} is the path of a folder");
        match partial {
            Some(model) => {
                wrong(format!("not complete in the Hugging Face cache: {} has no snapshot", model.display()), get)
            }
            None => wrong(
                format!(
                    "no such folder in {}, and no {} in the Hugging Face cache",
                    here.display(),
                    models[0].display()
                ),
                format!("{get}; HF_HUB_CACHE says where the cache is"),
            ),
        }
    }
}

/// Whether it can be a name on the hub: `NAME` or `ORGANIZATION/NAME`.
fn is_model(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split('/').count() <= 2 && name.split('/').all(is_part)
}

/// What the folder of the model may be called in the cache, the likeliest first.
fn models(name: &str) -> Vec<String> {
    let folder = |name: &str| format!("models--{}", name.replace('/', "--"));
    let held = HOLDERS.iter().map(|holder| folder(&format!("{holder}/{name}")));
    let held: Vec<String> = if name.contains('/') { Vec::new() } else { held.collect() };
    [folder(name)].into_iter().chain(held).collect()
}

/// The files of a model in the cache: of the revision that `refs/main` names; of the only one, if there is no such file,
/// as where another revision was asked for.
fn snapshot(model: &Path) -> Option<PathBuf> {
    let snapshots = model.join("snapshots");
    if let Ok(revision) = fs::read_to_string(model.join("refs/main")) {
        return Some(snapshots.join(revision.trim())).filter(|path| !revision.trim().is_empty() && path.is_dir());
    }
    let mut there = fs::read_dir(snapshots).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    there.next().filter(|_| there.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache(Some(dir.path().to_owned()));
        (dir, cache)
    }

    fn add(cache: &Path, model: &str, revision: &str) -> PathBuf {
        let snapshot = cache.join(model).join("snapshots").join(revision);
        fs::create_dir_all(&snapshot).unwrap();
        snapshot
    }

    #[test]
    fn the_cache_is_where_the_hubs_programs_have_it() {
        let place = |set: &[(&str, &str)]| {
            let set = set.to_vec();
            Cache::place(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
        };
        for (set, expected) in [
            (&[("HOME", "/me")][..], Some("/me/.cache/huggingface/hub")),
            (&[("HOME", "/me"), ("XDG_CACHE_HOME", "/c")], Some("/c/huggingface/hub")),
            (&[("HOME", "/me"), ("XDG_CACHE_HOME", "/c"), ("HF_HOME", "/hf")], Some("/hf/hub")),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")], Some("/hub")),
            (&[("HOME", "/me"), ("HF_HOME", "~/hf")], Some("/me/hf/hub")),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")], Some("/old")),
            (&[], None),
        ] {
            assert_eq!(place(set), expected.map(PathBuf::from), "{set:?}");
        }
    }

    #[test]
    fn a_name_is_a_folder_then_a_snapshot() {
        let (dir, cache) = cache();
        let find = |name: &str| cache.find(name, "key");
        assert!(find("some-org/some-model").is_err());
        let old = add(dir.path(), "models--some-org--some-model", "old");
        assert_eq!(find("some-org/some-model").unwrap(), old);
        let new = add(dir.path(), "models--some-org--some-model", "new");
        // Two of them, and nothing says which.
        assert!(find("some-org/some-model").unwrap_err().to_string().contains("has no snapshot"));
        let refs = dir.path().join("models--some-org--some-model/refs");
        fs::create_dir(&refs).unwrap();
        fs::write(refs.join("main"), "new\n").unwrap();
        assert_eq!(find("some-org/some-model").unwrap(), new);
        fs::write(refs.join("main"), "newest").unwrap();
        assert!(find("some-org/some-model").unwrap_err().to_string().contains("has no snapshot"));

        let holder = add(dir.path(), "models--google-bert--bert-base-uncased", "a");
        assert_eq!(find("bert-base-uncased").unwrap(), holder);
        let bare = add(dir.path(), "models--bert-base-uncased", "b");
        assert_eq!(find("bert-base-uncased").unwrap(), bare);

        let folder = dir.path().join("mine");
        fs::create_dir(&folder).unwrap();
        assert_eq!(find(folder.to_str().unwrap()).unwrap(), folder);
    }

    #[test]
    fn what_is_nowhere_says_where_it_was_looked_for() {
        let (dir, cache) = cache();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let place = dir.path().join("models--a--b").display().to_string();
        for (name, parts) in [
            ("a/b", &["no such folder in /", &place, "hf download a/b", "HF_HUB_CACHE"][..]),
            ("a/b/c", &["a/b/c: no such folder", "the.key is the path of a Hugging Face folder"]),
            ("../b", &["../b: no such folder", "the path of a Hugging Face folder"]),
            (file.to_str().unwrap(), &["a file, not a folder", "name that folder"]),
        ] {
            let error = cache.find(name, "the.key").unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let error = Cache(None).find("a/b", "the.key").unwrap_err().to_string();
        assert!(error.contains("nothing is downloaded"), "{error}");
    }
}
