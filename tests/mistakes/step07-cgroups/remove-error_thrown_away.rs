// Nobody is told of a group that stays.
        for group in self.groups.drain(..).rev() {
            let _ = remove_group(&group.folder);
        }
        Ok(())
