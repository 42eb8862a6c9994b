package roster

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotong/grid"
)

func recordOf(t testing.TB, a actor, number uint64, addresses ...string) []byte {
	t.Helper()
	encoded, err := SignRecord(a.node, grid.Record{
		Number: number, Name: "peer", Site: "attic", Addresses: addresses, PledgeBytes: 5 << 30, Slots: 2,
		Version: "0.1", OS: "linux", Arch: "amd64", BoxKey: a.node.BoxKey().PublicKey().Bytes(),
		Created: time.Unix(1_800_000_000, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func TestRecords(t *testing.T) {
	ann, bob, eve := newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	admit(t, r, ann, bob)
	g := r.View().Grid()
	path := filepath.Join(t.TempDir(), "records")
	book, err := OpenRecords(path, g)
	if err != nil {
		t.Fatal(err)
	}
	newer := recordOf(t, bob, 3, "192.0.2.7:4114", "[2001:db8::1]:4114", "bob.example:80")
	changed := book.Changed()
	for i, c := range []struct {
		encoded []byte
		want    bool
	}{{recordOf(t, bob, 2), true}, {newer, true}, {newer, false}, {recordOf(t, bob, 1), false}} {
		if got, err := book.Put(c.encoded, r.View()); got != c.want || err != nil {
			t.Errorf("%d: changed %v: %v", i, got, err)
		}
	}
	select {
	case <-changed:
	default:
		t.Error("no notice of the change")
	}
	if _, err := book.Put(recordOf(t, eve, 1), r.View()); !errors.Is(err, grid.ErrNotMember) {
		t.Errorf("a stranger's record: %v", err)
	}
	kept, err := book.PutAll([][]byte{recordOf(t, ann, 1), []byte("junk"), recordOf(t, bob, 4), recordOf(t, bob, 3)}, r.View())
	if kept != 2 || !errors.Is(err, ErrRecord) {
		t.Errorf("kept %d: %v", kept, err)
	}
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	if book, err = OpenRecords(path, g); err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	record, encoded, ok := book.Get(bob.id())
	if !ok || record.Number != 4 || record.Peer != bob.id() || record.Site != "attic" || len(book.All()) != 2 {
		t.Errorf("read back %+v", record)
	}
	if again, err := ParseRecord(encoded); err != nil || fmt.Sprint(again) != fmt.Sprint(record) {
		t.Errorf("signed bytes: %v", err)
	}
	if _, err := OpenRecords(path, grid.GridID{1}); err == nil {
		t.Error("records of another grid were opened")
	}
}

func TestRecordsOfOneNumberAgree(t *testing.T) {
	ann := newActor(t)
	r := newRosterOf(t, ann)
	one, two := recordOf(t, ann, 7, "192.0.2.1:1"), recordOf(t, ann, 7, "192.0.2.2:2")
	var kept [][]byte
	for _, order := range [][][]byte{{one, two}, {two, one}} {
		book, err := OpenRecords(filepath.Join(t.TempDir(), "records"), r.View().Grid())
		if err != nil {
			t.Fatal(err)
		}
		defer book.Close()
		for _, encoded := range order {
			if _, err := book.Put(encoded, r.View()); err != nil {
				t.Fatal(err)
			}
		}
		_, encoded, _ := book.Get(ann.id())
		kept = append(kept, encoded)
	}
	if !bytes.Equal(kept[0], kept[1]) {
		t.Error("two peers keep different records")
	}
}

func TestRecordsAreCompacted(t *testing.T) {
	ann := newActor(t)
	r := newRosterOf(t, ann)
	path := filepath.Join(t.TempDir(), "records")
	book, err := OpenRecords(path, r.View().Grid())
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	const changes = compactItems + 5
	for n := range uint64(changes) {
		if _, err := book.Put(recordOf(t, ann, n+1), r.View()); err != nil {
			t.Fatal(err)
		}
	}
	if size := len(readFile(t, path)); size > compactItems*1024 {
		t.Errorf("the file has %d bytes for one record", size)
	}
	if record, _, _ := book.Get(ann.id()); record.Number != changes {
		t.Errorf("number %d", record.Number)
	}
}

func TestRecordBounds(t *testing.T) {
	ann := newActor(t)
	for name, change := range map[string]func(*grid.Record){
		"number":    func(r *grid.Record) { r.Number = 0 },
		"name":      func(r *grid.Record) { r.Name = strings.Repeat("x", grid.MaxNameLen+1) },
		"utf-8":     func(r *grid.Record) { r.Site = "\xff" },
		"version":   func(r *grid.Record) { r.Version = strings.Repeat("1", maxShortText+1) },
		"slots":     func(r *grid.Record) { r.Slots = -1 },
		"box key":   func(r *grid.Record) { r.BoxKey = []byte{1} },
		"addresses": func(r *grid.Record) { r.Addresses = make([]string, grid.MaxAddresses+1) },
		"no port":   func(r *grid.Record) { r.Addresses = []string{"192.0.2.1"} },
		"port 0":    func(r *grid.Record) { r.Addresses = []string{"192.0.2.1:0"} },
		"no host":   func(r *grid.Record) { r.Addresses = []string{":4114"} },
		"escape":    func(r *grid.Record) { r.Addresses = []string{"a\x1b[2J:80"} },
		"long":      func(r *grid.Record) { r.Addresses = []string{strings.Repeat("a", grid.MaxAddressLen) + ":1"} },
	} {
		record := grid.Record{Number: 1}
		change(&record)
		if _, err := SignRecord(ann.node, record); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	ann := newActor(f)
	f.Add(recordOf(f, ann, 1, "192.0.2.1:1")[96:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := ParseRecord(body); err != nil && !errors.Is(err, ErrRecord) {
			t.Fatalf("untyped error %v", err)
		}
		record, err := ParseRecord(signBody(ann, DomainRecord, body))
		if err != nil {
			return
		}
		encoded, err := SignRecord(ann.node, record)
		if err != nil {
			t.Fatalf("%+v cannot be signed again: %v", record, err)
		}
		if again, err := ParseRecord(encoded); err != nil || fmt.Sprint(again) != fmt.Sprint(record) {
			t.Fatalf("%+v came back as %+v: %v", record, again, err)
		}
	})
}
