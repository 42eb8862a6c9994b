package identity_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gotong/grid/identity"
)

// The published BIP39 test vectors for 256 bits.
var vectors = []struct{ entropy, words string }{
	{strings.Repeat("00", 32), strings.Repeat("abandon ", 23) + "art"},
	{strings.Repeat("7f", 32), "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title"},
	{strings.Repeat("80", 32), "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless"},
	{strings.Repeat("ff", 32), strings.Repeat("zoo ", 23) + "vote"},
	{"68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c", "hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy gospel tennis maple dilemma loan word shrug inflict delay length"},
}

func TestPhraseVectors(t *testing.T) {
	for _, v := range vectors {
		p, err := identity.ParsePhrase(v.words)
		if err != nil {
			t.Fatalf("%s: %v", v.entropy, err)
		}
		if got := hex.EncodeToString(p.Entropy()); got != v.entropy {
			t.Errorf("entropy %s, want %s", got, v.entropy)
		}
		if got := p.String(); got != v.words {
			t.Errorf("words %q, want %q", got, v.words)
		}
	}
}

func TestPhraseRoundTrip(t *testing.T) {
	for range 50 {
		p, err := identity.NewPhrase()
		if err != nil {
			t.Fatal(err)
		}
		spelled := "\n\t " + strings.ToUpper(strings.ReplaceAll(p.String(), " ", "  \r\n"))
		again, err := identity.ParsePhrase(spelled)
		if err != nil || again != p {
			t.Fatalf("read back: %v", err)
		}
		numbered := ""
		for i, word := range strings.Fields(p.String()) {
			numbered += fmt.Sprintf("%2d. %s\n", i+1, word)
		}
		if again, err := identity.ParsePhrase(numbered); err != nil || again != p {
			t.Fatalf("read back with its numbers: %v", err)
		}
	}
}

func TestPhraseErrors(t *testing.T) {
	good := strings.Fields(vectors[4].words)
	change := func(f func(words []string)) string {
		words := append([]string(nil), good...)
		f(words)
		return strings.Join(words, " ")
	}
	cases := map[string]struct{ text, want string }{
		"empty":    {"", "0 words"},
		"short":    {strings.Join(good[:23], " "), "23 words"},
		"unknown":  {change(func(w []string) { w[6] = "gotong" }), "word 7 is not"},
		"swapped":  {change(func(w []string) { w[0], w[1] = w[1], w[0] }), "checksum"},
		"too long": {strings.Repeat("abandon ", 1000), "more than"},
	}
	for name, c := range cases {
		_, err := identity.ParsePhrase(c.text)
		if !errors.Is(err, identity.ErrPhrase) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), `"gotong"`) {
			t.Errorf("%s: the error shows a word: %v", name, err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	p, err := identity.NewPhrase()
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "phrase", p, "key", key, "pointer", &key)
	shown := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		shown += fmt.Sprintf(verb, p) + fmt.Sprintf(verb, key) + fmt.Sprintf(verb, struct{ P any }{p})
	}
	for _, secret := range []string{
		strings.Fields(p.String())[0] + " ", hex.EncodeToString(p.Entropy()[:4]), fmt.Sprint(p.Entropy()[:4])[1:],
		hex.EncodeToString(key.Private()[:4]), fmt.Sprint([]byte(key.Private()[:4]))[1:],
	} {
		if strings.Contains(shown, strings.TrimSuffix(secret, "]")) {
			t.Errorf("%q is shown in %s", secret, shown)
		}
	}
}

func TestOwnerKeyIsStable(t *testing.T) {
	p, err := identity.ParsePhrase(vectors[4].words)
	if err != nil {
		t.Fatal(err)
	}
	// Fixed for ever: a change of the derivation would lose every owner.
	const want = "fe7b2eead388f98c5f8c689def137809d9bdedb4222a9e4bbeacfa09dae2bf1b"
	if got := hex.EncodeToString(p.OwnerKey().Public().(ed25519.PublicKey)); got != want {
		t.Errorf("owner key %s, want %s", got, want)
	}
}

func FuzzParsePhrase(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.words)
		f.Add(strings.ToUpper(v.words) + "\n")
	}
	f.Add("abandon ability")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := identity.ParsePhrase(s)
		if err != nil {
			if !errors.Is(err, identity.ErrPhrase) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if again, err := identity.ParsePhrase(p.String()); err != nil || again != p {
			t.Fatalf("read back: %v", err)
		}
	})
}

func TestPhraseDetectsChangedWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := strings.Fields(vectors[rapid.IntRange(0, len(vectors)-1).Draw(t, "vector")].words)
		other := strings.Fields(vectors[4].words)[rapid.IntRange(0, 23).Draw(t, "word")]
		at := rapid.IntRange(0, 22).Draw(t, "at")
		before := strings.Join(words, " ")
		words[at] = other
		p, err := identity.ParsePhrase(strings.Join(words, " "))
		if err == nil && p.String() != strings.Join(words, " ") {
			t.Fatalf("%q read as %q", words, p.String())
		}
		if err == nil && before == strings.Join(words, " ") && p.String() != before {
			t.Fatal("unchanged phrase read differently")
		}
	})
}
