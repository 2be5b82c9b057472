// A comma in quotes belongs to the value.
    let mut challenges: Vec<Challenge> = Vec::new();
    for part in header.split(',') {
        let (first, rest) = part.trim().split_once(' ').unwrap_or((part.trim(), ""));
        let parameter = match first.contains('=') {
            true => part,
            false => {
                challenges.push(Challenge {
                    scheme: first.to_lowercase(),
                    parameters: Vec::new(),
                });
                rest
            }
        };
        if let (Some((name, text)), Some(challenge)) = (parameter.split_once('='), challenges.last_mut()) {
            challenge.parameters.push((name.trim().to_lowercase(), value(text).0));
        }
    }
    challenges
