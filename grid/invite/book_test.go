package invite

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"gotong/grid"
)

const maxTestValid = time.Hour

func testParams() CreateParams {
	return CreateParams{
		Grid: grid.GridID{1}, GridName: "Rose Street", Inviter: grid.PeerID{2},
		Addresses: []string{"192.0.2.1:4114", "[2001:db8::1]:4114"}, Valid: maxTestValid,
	}
}

func newBook(t testing.TB) (*Book, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "invites")
	b, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

func TestInvitesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := newBook(t)
		used, err := b.Create(testParams())
		if err != nil {
			t.Fatal(err)
		}
		open, err := b.Create(testParams())
		if err != nil {
			t.Fatal(err)
		}
		first, second := grid.PeerID{3}, grid.PeerID{4}
		if err := b.use(used.ID, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(maxTestValid + time.Second)
		if _, err := b.check(open.ID, first, true); !errors.Is(err, ErrExpired) {
			t.Errorf("check: %v", err)
		}
		if err := b.use(open.ID, first); !errors.Is(err, ErrExpired) {
			t.Errorf("use: %v", err)
		}
		if _, err := b.check(used.ID, first, true); err != nil {
			t.Errorf("the one that used it in time: %v", err)
		}
		if _, err := b.check(used.ID, second, true); !errors.Is(err, ErrUsed) {
			t.Errorf("another: %v", err)
		}
		time.Sleep(keepExpired)
		if _, err := b.Create(testParams()); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%d files are left: %v", len(entries), err)
		}
	})
}

func TestBookSurvivesRestart(t *testing.T) {
	b, dir := newBook(t)
	code, err := b.Create(testParams())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.use(code.ID, grid.PeerID{3}); err != nil {
		t.Fatal(err)
	}
	leftover := filepath.Join(dir, ".x.tmp")
	if err := os.WriteFile(leftover, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err = OpenBook(dir); err != nil {
		t.Fatal(err)
	}
	if err := b.use(code.ID, grid.PeerID{4}); !errors.Is(err, ErrUsed) {
		t.Errorf("used twice: %v", err)
	}
	if _, err := os.Stat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an interrupted write stays: %v", err)
	}
	// A damaged invite is set aside and works no more.
	path := filepath.Join(dir, fileName(code.ID))
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err = OpenBook(dir); err != nil {
		t.Fatal(err)
	}
	if err := b.use(code.ID, grid.PeerID{3}); !errors.Is(err, ErrUnknownInvite) {
		t.Errorf("damaged: %v", err)
	}
}

func TestBookIsBounded(t *testing.T) {
	b, _ := newBook(t)
	for range MaxInvites {
		if _, err := b.Create(testParams()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Create(testParams()); !errors.Is(err, ErrTooManyInvites) {
		t.Errorf("one too many: %v", err)
	}
	for name, change := range map[string]func(*CreateParams){
		"never valid": func(p *CreateParams) { p.Valid = 0 },
		"too long":    func(p *CreateParams) { p.Valid = MaxValid + 1 },
		"address":     func(p *CreateParams) { p.Addresses = []string{"nowhere"} },
	} {
		p := testParams()
		change(&p)
		if _, err := b.Create(p); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func FuzzParseStored(f *testing.F) {
	s := stored{id: ID{1}, secret: [32]byte{2}, expires: time.Unix(1_800_000_000, 0).UTC(), grantAdmin: true, wrong: 2}
	f.Add(s.encode())
	s.usedBy = grid.PeerID{3}
	f.Add(s.encode())
	f.Add([]byte(fileMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseStored(data)
		if err != nil {
			return
		}
		if again, err := parseStored(s.encode()); err != nil || again != s {
			t.Fatalf("%+v came back as %+v: %v", s, again, err)
		}
		if bytes.Equal(s.secret[:], nil) {
			t.Fatal("no secret")
		}
	})
}
