//! How an image's configuration becomes a part of a container's plan: what is typed comes before what the image says.

use crate::manifest::parts::Image;
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Component, Path, PathBuf};
use step06_caps::users;
use step08_overlay::volumes::Tmpfs;
use step09_detach::container::plan::Plan;
use step09_detach::flags::signal;

/// Fills in what `plan` leaves open with what `image` says, and returns where the image wants volumes.
///
/// `entrypoint` comes in place of the image's own, and then the image's usual arguments don't count either; an empty one
/// leaves only what is typed.
///
/// # Errors
/// The image says something that can't be; there is no command at all.
pub fn merge(plan: &mut Plan, image: &Image, entrypoint: Option<&str>) -> Result<Vec<PathBuf>> {
    let config = image.config.config().clone().unwrap_or_default();
    let typed = plan.command.take();
    let own = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (entry, usual) = match entrypoint {
        None => (own(config.entrypoint()), own(config.cmd())),
        Some("") => (Vec::new(), Vec::new()),
        Some(program) => (vec![program.to_owned()], Vec::new()),
    };
    let command = [entry, typed.unwrap_or(usual)].concat();
    if command.is_empty() {
        bail!("the image names no command\nhelp: type one behind the image's name");
    }
    plan.command = Some(command);

    let mut variables = own(config.env());
    // Typed, a name alone takes the value that it has here. An image mustn't get to know that.
    variables.retain(|variable| variable.find('=').is_some_and(|at| at > 0));
    // What is typed stands behind, and so it counts.
    variables.append(&mut plan.env.env);
    plan.env.env = variables;

    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let (None, Some(workdir)) = (&plan.env.workdir, said(config.working_dir())) {
        let workdir = Path::new("/").join(workdir);
        let workdir = inside(&workdir).context("its WorkingDir")?;
        plan.env.workdir = Some(workdir.display().to_string());
    }
    if let (None, Some(user)) = (&plan.user.user, said(config.user())) {
        plan.user.user = Some(users::shape(&user).map_err(|error| anyhow!("its User: {error}"))?);
    }
    if let (None, Some(name)) = (plan.stop_signal, said(config.stop_signal())) {
        let number = signal(&name).map_err(|error| anyhow!("its StopSignal: {error}"))?;
        plan.stop_signal = Some(number);
    }
    for (key, value) in config.labels().iter().flatten() {
        let typed = plan.labels.entry(key.clone());
        typed.or_insert_with(|| value.clone());
    }
    let mut volumes = Vec::new();
    for volume in config.volumes().iter().flatten() {
        let target = inside(Path::new(volume)).context("its Volumes")?;
        // What is typed for the same place comes instead of the image's volume.
        let typed = plan
            .layers
            .volume
            .iter()
            .map(|volume| volume.target.as_path());
        let mut typed = typed.chain(plan.layers.tmpfs.iter().map(Tmpfs::target));
        if !typed.any(|typed| typed == target) {
            volumes.push(target);
        }
    }
    volumes.sort();
    volumes.dedup();
    Ok(volumes)
}

/// A path in the container, without what leads nowhere.
fn inside(path: &Path) -> Result<PathBuf> {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    match path.is_absolute() {
        true => Ok(plain),
        false => bail!("{} is no absolute path", path.display()),
    }
}
