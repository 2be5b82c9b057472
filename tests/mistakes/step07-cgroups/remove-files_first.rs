// remove_dir_all wants to remove the files in the folder, and these can't be removed.
        while let Some(group) = self.groups.last() {
            std::fs::remove_dir_all(&group.folder)?;
            self.groups.pop();
        }
        Ok(())
