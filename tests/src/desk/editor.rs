//! Has an editor's rust-analyzer know the exercises, which are workspaces of their own.

use crate::programs::workspace;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// An editor that we can write settings for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Editor {
    /// Visual Studio Code: .vscode/settings.json
    Vscode,
    /// Helix: .helix/languages.toml
    Helix,
    /// Neovim: .nvim.lua, read where 'exrc' is set
    Nvim,
}

/// Writes the settings of an editor for this checkout.
///
/// # Errors
/// There are settings already that we can't add to: what to add is said.
pub fn configure(editor: Editor) -> Result<u8> {
    let written = configure_in(&workspace(), editor)?;
    println!("{written} tells rust-analyzer of the steps and of each chapter that is started");
    Ok(0)
}

fn configure_in(folder: &Path, editor: Editor) -> Result<&'static str> {
    let projects = projects();
    let (name, text) = match editor {
        Editor::Vscode => {
            let name = ".vscode/settings.json";
            (name, with_setting(&folder.join(name), &projects)?)
        }
        Editor::Helix => (
            ".helix/languages.toml",
            format!(
                "[language-server.rust-analyzer.config]\nlinkedProjects = {}\n",
                json!(projects)
            ),
        ),
        Editor::Nvim => (
            ".nvim.lua",
            format!(
                "vim.lsp.config(\"rust_analyzer\", {{\n  settings = {{ [\"rust-analyzer\"] = {{ \
                 linkedProjects = {{ {} }} }} }},\n}})\n",
                projects
                    .iter()
                    .map(|path| format!("{path:?}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        ),
    };
    let file = folder.join(name);
    let old = fs::read_to_string(&file).unwrap_or_default();
    // VS Code's settings are added to; what stands in another file isn't ours to lose.
    if editor != Editor::Vscode && !old.is_empty() && !old.contains("linkedProjects") {
        bail!("{name} has settings of yours\nhelp: add this to it:\n{text}");
    }
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    Ok(name)
}

/// The manifests: the steps', and that of each chapter that is started.
fn projects() -> Vec<String> {
    let mut projects = vec!["Cargo.toml".to_owned()];
    let started = fs::read_dir(workspace().join("exercises"))
        .into_iter()
        .flatten();
    let mut copies: Vec<_> = started
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("step") && !name.contains('.'))
        .map(|name| format!("exercises/{name}/Cargo.toml"))
        .collect();
    copies.sort();
    projects.extend(copies);
    projects
}

/// The settings in `file` with ours added.
fn with_setting(file: &Path, projects: &[String]) -> Result<String> {
    let mut settings: Map<String, Value> = match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).with_context(|| {
            format!(
                "{} has comments, which would be lost\nhelp: add this to it: \
                 \"rust-analyzer.linkedProjects\": {}\nwhere it stops being JSON",
                file.display(),
                json!(projects)
            )
        })?,
        Err(_) => Map::new(),
    };
    settings.insert("rust-analyzer.linkedProjects".into(), json!(projects));
    Ok(serde_json::to_string_pretty(&settings)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_there_stay() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".vscode/settings.json");
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, "{\"editor.tabSize\": 4}").unwrap();
        configure_in(folder.path(), Editor::Vscode).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("tabSize") && text.contains("linkedProjects"),
            "{text}"
        );
        fs::write(&file, "{ // mine\n}").unwrap();
        assert!(configure_in(folder.path(), Editor::Vscode).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "{ // mine\n}");
        let helix = folder.path().join(".helix/languages.toml");
        configure_in(folder.path(), Editor::Helix).unwrap();
        fs::write(&helix, "mine = true\n").unwrap();
        assert!(configure_in(folder.path(), Editor::Helix).is_err());
    }
}
