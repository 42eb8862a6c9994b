package invite

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

func testSheet(t testing.TB) Sheet {
	t.Helper()
	phrase, err := identity.NewPhrase()
	if err != nil {
		t.Fatal(err)
	}
	return Sheet{Grid: grid.GridID{1}, Phrase: phrase, Created: time.Unix(1e9, 0).UTC(), Members: []SheetMember{
		{grid.PeerID{2}, []string{"192.0.2.1:4114", "[2001:db8::1]:4114"}}, {grid.PeerID{3}, []string{"friend.example:7000"}},
	}}
}

// TestSheet: a sheet is read back however it was copied, and nothing else is.
func TestSheet(t *testing.T) {
	want := testSheet(t)
	word := want.Encode()
	broken := "Recovery sheet\r\n\r\n" + strings.ToUpper(word[:70]) + "\r\n  " + word[70:] + "\r\n\r\nKeep it safe.\n"
	for _, text := range []string{word, strings.ToUpper(word), broken} {
		got, err := ParseSheet(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read back differently, %v", err)
		}
	}
	for _, text := range []string{"", word[:len(word)-1], word[1:], word + "a", strings.Replace(word, word[40:44], "zzzz", 1), want.Phrase.String()} {
		if _, err := ParseSheet(text); !errors.Is(err, ErrSheet) {
			t.Errorf("not refused: %v", err)
		}
	}
	if shown := fmt.Sprintf("%v %+v %s", want, want, want); strings.Contains(shown, strings.Fields(want.Phrase.String())[0]) {
		t.Error("printing a sheet shows the phrase")
	}
}

func FuzzParseSheet(f *testing.F) {
	f.Add(testSheet(f).Encode())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSheet(text)
		if err != nil {
			return
		}
		if again, err := ParseSheet(s.Encode()); err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("does not read itself: %v", err)
		}
	})
}
