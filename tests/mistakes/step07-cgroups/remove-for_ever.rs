// It waits for ever for a process that doesn't end.
        while let Some(group) = self.groups.last() {
            while remove_group(&group.folder).is_err() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            self.groups.pop();
        }
        Ok(())
