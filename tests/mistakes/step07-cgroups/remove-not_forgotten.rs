// The groups go, and are remembered.
        for group in self.groups.iter().rev() {
            remove_group(&group.folder)?;
        }
        Ok(())
