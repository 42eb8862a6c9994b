package seal_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gotong/storage"
	"gotong/storage/seal"
)

func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func derive(t testing.TB, entropyByte, vaultByte byte) seal.VaultSecrets {
	entropy := counting(32)
	entropy[0] = entropyByte
	v, err := seal.DeriveVault(entropy, storage.VaultID{vaultByte})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestDerivationIsFixed pins what docs/format.md specifies: another value here
// means that no stored vault opens any more.
func TestDerivationIsFixed(t *testing.T) {
	v := derive(t, 0, 1)
	h := seal.Hash([]byte("content"))
	id := v.BlobID(h)
	for name, pair := range map[string][2]string{
		"hash":    {hex.EncodeToString(h[:]), "3fba5250be9ac259c56e7250c526bc83bacb4be825f2799d3d59e5b4878dd74e"},
		"blob id": {hex.EncodeToString(id[:]), "6391b1db8b3d5f96840cbabcb699c36ac51e626fb0cdd66f1e7d3087ae6f06ed"},
		"chunker": {hex.EncodeToString(v.ChunkerKey()), "cc76d71c307185a18e208c1e1763bf854c6e65d1857ae6e8a57d53bdbd9a7503"},
		"read":    {hex.EncodeToString(v.ReadPublic()), "d16042a53bfe2da7c82c5df2dc41cf94b6b8857c951a2543cb5382445416f62b"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s, stored ones have %s", name, pair[0], pair[1])
		}
	}
	if !bytes.Equal(v.ChunkerKey(), derive(t, 0, 1).ChunkerKey()) || bytes.Equal(v.ChunkerKey(), derive(t, 1, 1).ChunkerKey()) ||
		bytes.Equal(v.ChunkerKey(), derive(t, 0, 2).ChunkerKey()) {
		t.Error("chunker key does not depend on phrase and vault alone")
	}
}

func TestDeriveRefusesWeakEntropy(t *testing.T) {
	if _, err := seal.DeriveVault(counting(15), storage.VaultID{}); err == nil {
		t.Fatal("15 bytes of entropy accepted")
	}
}

// TestStoredBytesOpen opens bytes sealed by the first version of the format.
func TestStoredBytesOpen(t *testing.T) {
	v, h := derive(t, 0, 1), seal.Hash([]byte("content"))
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	blob, err := v.OpenBlob(nil, 7, h, unhex(storedBlob))
	if err != nil || string(blob) != "content" {
		t.Errorf("blob: %q, %v", blob, err)
	}
	indexed, err := v.OpenIndexed(nil, "toc", unhex(storedIndexed))
	if err != nil || string(indexed) != "table" {
		t.Errorf("indexed: %q, %v", indexed, err)
	}
	record, err := v.OpenRecord(unhex(storedRecord))
	if err != nil || string(record) != "snapshot" {
		t.Errorf("record: %q, %v", record, err)
	}
}

func TestBlobOpensOnlyAsItself(t *testing.T) {
	v, h := derive(t, 0, 1), seal.Hash([]byte("content"))
	sealed := v.SealBlob([]byte("before"), 1, h, []byte("content"))
	sealed, ok := bytes.CutPrefix(sealed, []byte("before"))
	if !ok || len(sealed) != len("content")+seal.Overhead {
		t.Fatalf("sealed bytes are not appended: %d", len(sealed))
	}
	plain, err := v.OpenBlob([]byte("before "), 1, h, sealed)
	if err != nil || string(plain) != "before content" {
		t.Fatalf("%q, %v", plain, err)
	}
	wrong := map[string]func() ([]byte, error){
		"kind":     func() ([]byte, error) { return v.OpenBlob(nil, 2, h, sealed) },
		"hash":     func() ([]byte, error) { return v.OpenBlob(nil, 1, seal.Hash(nil), sealed) },
		"vault":    func() ([]byte, error) { return derive(t, 0, 2).OpenBlob(nil, 1, h, sealed) },
		"phrase":   func() ([]byte, error) { return derive(t, 1, 1).OpenBlob(nil, 1, h, sealed) },
		"form":     func() ([]byte, error) { return v.OpenIndexed(nil, "toc", sealed) },
		"cut":      func() ([]byte, error) { return v.OpenBlob(nil, 1, h, sealed[:len(sealed)-1]) },
		"nothing":  func() ([]byte, error) { return v.OpenBlob(nil, 1, h, nil) },
		"altered":  func() ([]byte, error) { return v.OpenBlob(nil, 1, h, flip(sealed, 20)) },
		"in nonce": func() ([]byte, error) { return v.OpenBlob(nil, 1, h, flip(sealed, 0)) },
	}
	for name, open := range wrong {
		if _, err := open(); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("wrong %s: %v", name, err)
		}
	}
	if bytes.Equal(sealed, v.SealBlob(nil, 1, h, []byte("content"))) {
		t.Error("nonces repeat")
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestIndexedOpensOnlyForItsPurpose(t *testing.T) {
	v := derive(t, 0, 1)
	sealed := v.SealIndexed(nil, "toc", []byte("table"))
	if plain, err := v.WithoutRead().OpenIndexed(nil, "toc", sealed); err != nil || string(plain) != "table" {
		t.Fatalf("%q, %v", plain, err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"purpose": func() ([]byte, error) { return v.OpenIndexed(nil, "catalogue", sealed) },
		"vault":   func() ([]byte, error) { return derive(t, 0, 2).OpenIndexed(nil, "toc", sealed) },
	} {
		if _, err := open(); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("wrong %s: %v", name, err)
		}
	}
}

func TestRecordOpensForItsRecipients(t *testing.T) {
	mine, friend := derive(t, 0, 1), derive(t, 1, 1)
	sealed, err := mine.WithoutRead().SealRecord([]byte("snapshot"), friend.ReadPublic())
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]seal.VaultSecrets{"owner": mine, "friend": friend} {
		if plain, err := v.OpenRecord(sealed); err != nil || string(plain) != "snapshot" {
			t.Errorf("%s: %q, %v", name, plain, err)
		}
	}
	for name, v := range map[string]seal.VaultSecrets{"write-only": mine.WithoutRead(), "stranger": derive(t, 2, 1)} {
		if _, err := v.OpenRecord(sealed); !errors.Is(err, seal.ErrNoReadKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range sealed {
		if plain, err := mine.OpenRecord(flip(sealed, i)); err == nil {
			t.Fatalf("opens with byte %d altered: %q", i, plain)
		}
	}
}

func TestSealRecordRefuses(t *testing.T) {
	v := derive(t, 0, 1)
	var many [][]byte
	for i := range seal.MaxRecipients {
		many = append(many, derive(t, byte(i), 1).ReadPublic())
	}
	if _, err := v.SealRecord(nil, many...); err == nil {
		t.Error("17 recipients accepted")
	}
	if _, err := v.SealRecord(nil, many[1:]...); err != nil {
		t.Errorf("16 recipients: %v", err)
	}
	if _, err := v.SealRecord(nil, []byte("short")); err == nil {
		t.Error("recipient of 5 bytes accepted")
	}
	if _, err := v.SealRecord(make([]byte, seal.MaxRecordBytes)); err == nil {
		t.Error("huge record accepted")
	}
}

func TestSecretsFile(t *testing.T) {
	for name, v := range map[string]seal.VaultSecrets{"full": derive(t, 0, 1), "write-only": derive(t, 0, 1).WithoutRead()} {
		file, err := v.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := seal.ParseSecrets(file)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := back.Marshal()
		if err != nil || !bytes.Equal(file, again) || back.CanRead() != v.CanRead() || back.Vault() != v.Vault() {
			t.Errorf("%s does not come back as it was: %v", name, err)
		}
		sealed := v.SealBlob(nil, 1, seal.Hash(nil), []byte("x"))
		if _, err := back.OpenBlob(nil, 1, seal.Hash(nil), sealed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i := range file {
			if _, err := seal.ParseSecrets(flip(file, i)); !errors.Is(err, storage.ErrCorrupt) {
				t.Fatalf("%s: byte %d altered: %v", name, i, err)
			}
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	v := derive(t, 0, 1)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secrets", v)
	out := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		out += fmt.Sprintf(verb, v) + fmt.Sprintf(verb, struct{ V seal.VaultSecrets }{v})
	}
	for _, key := range [][]byte{v.ChunkerKey(), v.ReadPublic()} {
		if strings.Contains(out, hex.EncodeToString(key)) || strings.Contains(out, fmt.Sprint(key)) {
			t.Fatal("a key is in the output")
		}
	}
}

func FuzzParseSecrets(f *testing.F) {
	for _, v := range []seal.VaultSecrets{derive(f, 0, 1), derive(f, 0, 1).WithoutRead()} {
		file, err := v.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
		f.Add(file[:len(file)-1])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		v, err := seal.ParseSecrets(file)
		if err != nil {
			return
		}
		if again, err := v.Marshal(); err != nil || !bytes.Equal(file, again) {
			t.Fatalf("what parses does not marshal back: %v", err)
		}
	})
}

func FuzzOpenRecord(f *testing.F) {
	v := derive(f, 0, 1)
	sealed, err := v.SealRecord([]byte("snapshot"), derive(f, 1, 1).ReadPublic())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := v.OpenRecord(b); err == nil && string(plain) != "snapshot" {
			t.Fatalf("forged record opens as %q", plain)
		}
	})
}

func BenchmarkSealBlob(b *testing.B) {
	v := derive(b, 0, 1)
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			plain, dst := make([]byte, size), make([]byte, 0, size+seal.Overhead)
			h := seal.Hash(plain)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				dst = v.SealBlob(dst[:0], 1, h, plain)
			}
		})
	}
}

func BenchmarkOpenBlob(b *testing.B) {
	v := derive(b, 0, 1)
	plain := make([]byte, 1<<20)
	h := seal.Hash(plain)
	sealed := v.SealBlob(nil, 1, h, plain)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if plain, err = v.OpenBlob(plain[:0], 1, h, sealed); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBlobID(b *testing.B) {
	v, h := derive(b, 0, 1), seal.Hash(nil)
	b.ReportAllocs()
	for b.Loop() {
		_ = v.BlobID(h)
	}
}

func TestJobContent(t *testing.T) {
	key, job, id := [32]byte{1}, [32]byte{2}, [32]byte{3}
	plain := []byte("piece of a content")
	sealed := seal.NewJobContent(key, job, id, 18).Seal(nil, 4, plain)
	if len(sealed) != len(plain)+seal.Overhead {
		t.Errorf("%d bytes", len(sealed))
	}
	if got, err := seal.NewJobContent(key, job, id, 18).Open(4, bytes.Clone(sealed)); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%q, %v", got, err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"key":     func() ([]byte, error) { return seal.NewJobContent(id, job, id, 18).Open(4, bytes.Clone(sealed)) },
		"job":     func() ([]byte, error) { return seal.NewJobContent(key, id, id, 18).Open(4, bytes.Clone(sealed)) },
		"content": func() ([]byte, error) { return seal.NewJobContent(key, job, job, 18).Open(4, bytes.Clone(sealed)) },
		"size":    func() ([]byte, error) { return seal.NewJobContent(key, job, id, 19).Open(4, bytes.Clone(sealed)) },
		"piece":   func() ([]byte, error) { return seal.NewJobContent(key, job, id, 18).Open(3, bytes.Clone(sealed)) },
		"short":   func() ([]byte, error) { return seal.NewJobContent(key, job, id, 18).Open(4, sealed[:5]) },
		"altered": func() ([]byte, error) {
			b := bytes.Clone(sealed)
			b[20] ^= 1
			return seal.NewJobContent(key, job, id, 18).Open(4, b)
		},
	} {
		if got, err := open(); !errors.Is(err, storage.ErrCorrupt) || len(got) > 0 {
			t.Errorf("other %s: %q, %v", name, got, err)
		}
	}
}

func FuzzOpenJobContent(f *testing.F) {
	c := seal.NewJobContent([32]byte{1}, [32]byte{2}, [32]byte{3}, 5)
	f.Add(c.Seal(nil, 0, []byte("hello")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if got, err := c.Open(0, bytes.Clone(sealed)); err == nil && string(got) != "hello" {
			t.Fatalf("opened %q", got)
		}
	})
}
