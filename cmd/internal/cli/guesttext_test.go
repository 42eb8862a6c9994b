package cli

import (
	"bytes"
	"strings"
	"testing"
)

// TestTagsOfPieces: wherever a text is cut into pieces, each line has its tag once.
func TestTagsOfPieces(t *testing.T) {
	text := []byte("one\ntwo\n\nthree")
	const want = "x\tone\nx\ttwo\nx\t\nx\tthree"
	for cut := range text {
		var out bytes.Buffer
		g := guestWriter{w: &out, write: writeTo, tag: "x\t"}
		for _, piece := range [][]byte{text[:cut], text[cut:], nil} {
			if err := g.add(piece, piece == nil); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != want {
			t.Errorf("cut at %d: %q", cut, out.String())
		}
	}
}

func TestWholeRunes(t *testing.T) {
	for _, text := range []string{"", "a", "aü", "a€", "a😀", "\xff", "a\xff\xff\xff\xff"} {
		if got := wholeRunes([]byte(text)); got != len(text) {
			t.Errorf("%q: %d", text, got)
		}
	}
	for _, char := range []string{"ü", "€", "😀"} {
		for cut := 1; cut < len(char); cut++ {
			if got := wholeRunes([]byte(strings.Repeat(char, 2)[:len(char)+cut])); got != len(char) {
				t.Errorf("%q cut at %d: %d", char, cut, got)
			}
		}
	}
}
