// A console as its reader takes it: bold commands with a prompt that isn't text, and plain output.
// mdbook's highlighter has run before; what it made of a console is thrown away here. Without this
// script a console is plain text.
for (const code of document.querySelectorAll('code.language-console')) {
    const commands = [];
    let typing = false;
    const lines = code.textContent.trimEnd().split('\n').map(line => {
        // As in a shell, `> ` goes on with a command only while nothing has been printed.
        typing = line.startsWith('$ ') || (typing && line.startsWith('> '));
        if (!typing) {
            return line;
        }
        const command = document.createElement('span');
        command.className = 'command';
        command.dataset.prompt = line.slice(0, 2);
        command.textContent = line.slice(2);
        commands.push(command.textContent);
        return command;
    });
    code.replaceChildren(...lines.flatMap(line => [line, '\n']));
    // What mdbook's copy button takes: no prompt, and nothing that was printed.
    Object.defineProperty(code, 'innerText', { value: commands.join('\n') });
}
