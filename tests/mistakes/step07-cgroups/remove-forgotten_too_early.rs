// A group is forgotten before it has gone.
        while let Some(group) = self.groups.pop() {
            remove_group(&group.folder)?;
        }
        Ok(())
