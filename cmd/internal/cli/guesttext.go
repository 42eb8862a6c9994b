package cli

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"
)

// guestWriter passes bytes of a guest on untouched to files and pipes, with a tag
// before each line; on a terminal control characters are escaped, for a guest is not
// trusted.
type guestWriter struct {
	w      io.Writer
	write  func(w io.Writer, text []byte) error
	tag    string
	within bool   // a line was begun and has not ended
	held   []byte // the beginning of a character, on a terminal
}

// writeTo is a guestWriter.write without any ado.
func writeTo(w io.Writer, text []byte) error {
	_, err := w.Write(text)
	return err
}

// add writes a piece of the text.
func (g *guestWriter) add(text []byte, last bool) error {
	if len(g.held) > 0 {
		text = append(g.held, text...)
		g.held = nil
	}
	if whole := wholeRunes(text); !last && whole < len(text) && isTerminal(g.w) {
		g.held = bytes.Clone(text[whole:])
		text = text[:whole]
	}
	if len(text) == 0 {
		return nil
	}
	if g.tag != "" {
		text = g.tagged(text)
	}
	return g.write(g.w, guestText(g.w, text))
}

// tagged puts the tag before each line.
func (g *guestWriter) tagged(text []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		if !g.within {
			out.WriteString(g.tag)
		}
		out.Write(line)
		g.within = !bytes.HasSuffix(line, []byte{'\n'})
	}
	return out.Bytes()
}

// wholeRunes returns how much of text does not end within a character.
func wholeRunes(text []byte) int {
	for i := len(text) - 1; i >= max(0, len(text)-utf8.UTFMax); i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				return i
			}
			break
		}
	}
	return len(text)
}

// guestText returns what of a guest's text may be written to w.
func guestText(w io.Writer, text []byte) []byte {
	if !isTerminal(w) {
		return text
	}
	columns := strings.Split(string(text), "\t") // tabs do no harm
	for i, column := range columns {
		columns[i] = printableLines(column)
	}
	return []byte(strings.Join(columns, "\t"))
}
