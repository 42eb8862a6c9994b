package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"
)

// printJSON writes one document on one line.
func (a *app) printJSON(document any) error {
	encoder := json.NewEncoder(a.stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(document)
}

// table writes aligned columns to standard output.
func (a *app) table(header string, rows func(w io.Writer)) error {
	return writeTable(a.stdout, header, rows)
}

func writeTable(to io.Writer, header string, rows func(w io.Writer)) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	rows(w)
	return w.Flush()
}

// printable escapes what could steer a terminal: control characters, bytes
// that are not UTF-8, and the characters that turn the direction of text.
func printable(s string) string {
	return escape(s, false)
}

// printableLines is printable but leaves line breaks.
func printableLines(s string) string {
	return escape(s, true)
}

func escape(s string, lines bool) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n' && lines, r != utf8.RuneError && strconv.IsPrint(r):
			b.WriteString(s[i : i+size])
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}

func bytesText(n uint64) string { return humanize.Bytes(n) }

// rateText is a number of bytes in a time, per second.
func rateText(n uint64, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return humanize.Bytes(uint64(float64(n)/d.Seconds())) + "/s"
}

func countText(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return humanize.Comma(int64(n)) + " " + many
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func absolute(path string) (string, error) {
	if path == "" { // a shell variable that is not set; not this directory
		return "", errors.New("a path is empty")
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return full, nil
}
