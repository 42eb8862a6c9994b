package invite

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gotong/grid"
)

func TestCodeIsOneWord(t *testing.T) {
	b, _ := newBook(t)
	code, err := b.Create(testParams())
	if err != nil {
		t.Fatal(err)
	}
	text := code.String()
	if strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '1' || r > '7') }) || len(text) > 400 {
		t.Errorf("%d characters: %s", len(text), text)
	}
	for name, spelled := range map[string]string{
		"plain": text, "upper": strings.ToUpper(text), "quoted line breaks": " " + text[:50] + "\r\n\t" + text[50:] + "\n",
	} {
		got, err := ParseCode(spelled)
		if err != nil || got.String() != text || got.Expires != code.Expires || got.GridName != "Rose Street" || len(got.Addresses) != 2 {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	for name, bad := range map[string]string{
		"empty": "", "prefix": text[1:], "cut": text[:len(text)-2], "half": text[:40], "longer": text + "a",
		"character": strings.Replace(text, text[20:21], "0", 1), "huge": text + strings.Repeat("a", maxCodeTextBytes),
	} {
		if _, err := ParseCode(bad); !errors.Is(err, ErrCode) || strings.Contains(err.Error(), text[7:40]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "code", code)
	if strings.Contains(log.String(), text[7:40]) {
		t.Error("the code was logged")
	}
}

func TestCodeNoticesMistakes(t *testing.T) {
	code := Code{Grid: grid.GridID{1}, Inviter: grid.PeerID{2}, GridName: "g", Addresses: []string{"192.0.2.1:1"}}
	text := code.String()
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(text)
		at := rapid.IntRange(len(codePrefix), len(b)-1).Draw(t, "at")
		b[at] = rapid.SampledFrom([]byte("abcdefghijklmnopqrstuvwxyz234567")).Draw(t, "character")
		if got, err := ParseCode(string(b)); string(b) != text && err == nil {
			t.Fatalf("read as %+v", got)
		}
	})
}

// FuzzParseCode gives payloads a right checksum, so that they get past it.
func FuzzParseCode(f *testing.F) {
	code := Code{Grid: grid.GridID{1}, GridName: "Rose Street", Addresses: []string{"192.0.2.1:4114"}}
	f.Add(code.String(), code.payload())
	f.Add("gotong1", []byte{})
	f.Fuzz(func(t *testing.T, text string, payload []byte) {
		if _, err := ParseCode(text); err != nil && !errors.Is(err, ErrCode) {
			t.Fatalf("untyped error %v", err)
		}
		spelled := codePrefix + codeEncoding.EncodeToString(append(bytes.Clone(payload), codeCheck(payload)...))
		got, err := ParseCode(spelled)
		if err == nil && got.String() != spelled {
			t.Fatalf("%+v is spelled differently", got)
		}
	})
}
