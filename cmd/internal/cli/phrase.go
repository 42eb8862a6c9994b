package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

const (
	maxSecretFileBytes = 4096 // a phrase or a code with room for white space
	phraseColumns      = 4
)

// readPhraseFile returns the text of a phrase file, "" when none is named.
func (a *app) readPhraseFile(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	text, err := a.readSmall(name)
	if err != nil {
		return "", &failure{code: exitUsage, what: fmt.Sprintf("cannot read the recovery phrase: %v", err), meaning: "nothing was changed",
			next: "--phrase-file FILE, or - for standard input", cause: err}
	}
	return text, nil
}

// readPhrase returns the text of a phrase file, or asks for the phrase.
func (a *app) readPhrase(name string) (string, error) {
	if name != "" {
		return a.readPhraseFile(name)
	}
	text, err := a.askHidden("Recovery phrase, 24 words (not shown): ")
	if err != nil {
		return "", &failure{code: exitWrongPhrase, what: "this needs the recovery phrase", meaning: "nothing was changed",
			next: "the same command with --phrase-file FILE, or - for standard input", cause: err}
	}
	return text, nil
}

// readSmall reads a small text file, or standard input for "-".
func (a *app) readSmall(name string) (string, error) { return a.readText(name, maxSecretFileBytes) }

// readText reads a text file of at most limit bytes, or standard input for "-".
func (a *app) readText(name string, limit int64) (string, error) {
	var r io.Reader = a.stdin
	if name == "-" && isTerminal(a.stdin) {
		return a.askHidden("Input (not shown): ")
	}
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		r = f
	}
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return "", err
	}
	if int64(len(text)) > limit {
		return "", fmt.Errorf("%s: longer than %d bytes", name, limit)
	}
	return strings.TrimSpace(string(text)), nil
}

// askHidden reads a line from the terminal without showing it.
func (a *app) askHidden(prompt string) (string, error) {
	f, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(f) {
		return "", errNoTerminal
	}
	fmt.Fprint(a.stderr, prompt)
	text, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.stderr)
	return strings.TrimSpace(string(text)), err
}

// printPhrase writes the words numbered, in columns, as they are copied by hand.
func printPhrase(w io.Writer, phrase string) {
	out := bufio.NewWriter(w)
	defer out.Flush()
	for i, word := range strings.Fields(phrase) {
		fmt.Fprintf(out, "  %2d. %-9s", i+1, word)
		if i%phraseColumns == phraseColumns-1 {
			fmt.Fprintln(out)
		}
	}
}
