// Nobody waits for a process that is about to leave.
        fn remove(folder: &Path) -> Result<()> {
            for entry in std::fs::read_dir(folder)?.flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path())?;
                }
            }
            Ok(std::fs::remove_dir(folder)?)
        }
        while let Some(group) = self.groups.last() {
            if group.folder.exists() {
                remove(&group.folder)?;
            }
            self.groups.pop();
        }
        Ok(())
