package sandbox

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"gotong/grid/blake3"
	"gotong/grid/disk"
)

// maxCodeBytes bounds the compiled code of one module.
const maxCodeBytes = 1 << 30

// codeContext separates this use of the hash from others.
const codeContext = "gotong compiled code v1"

// codeKey names compiled code: by the module, and by everything else on which
// the code depends.
type codeKey [32]byte

// keyOfCode returns the name of the code that this machine makes of module.
func keyOfCode(module []byte) codeKey {
	id := blake3.Sum256(module)
	h := blake3.New()
	fmt.Fprintf(h, "%s\n%x\n%s\n%d\n%s/%s\n%s\n", codeContext, id, Engine, rewriteVersion, runtime.GOOS, runtime.GOARCH, processorFeatures())
	return codeKey(h.Sum(nil))
}

func (k codeKey) String() string { return hex.EncodeToString(k[:]) }

// codeSeal says what the file with compiled code must be before a child may
// have it. It is parsed from a disk that may have lost bytes.
type codeSeal struct {
	Size int64
	MAC  [32]byte // keyed BLAKE3 over codeKey, Place and the code
	// Place is where the engine looks for the code: a directory and a file name.
	Place [2]string
}

// sealMagic begins every seal.
var sealMagic = []byte("gotong seal v1\n")

// maxSealBytes bounds a seal.
const maxSealBytes = 1024

func (s codeSeal) append(b []byte) []byte {
	b = append(b, sealMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Size))
	b = append(b, s.MAC[:]...)
	b = appendString(b, s.Place[0])
	return appendString(b, s.Place[1])
}

func parseSeal(b []byte) (s codeSeal, err error) {
	rest, ok := bytes.CutPrefix(b, sealMagic)
	if !ok || len(rest) < 8 {
		return s, errors.New("no seal")
	}
	size := binary.LittleEndian.Uint64(rest)
	d := decoder{b: rest[8:]}
	d.array(s.MAC[:])
	s.Place = [2]string{d.string(maxPlaceBytes), d.string(maxPlaceBytes)}
	if err := d.err(); err != nil || size == 0 || size > maxCodeBytes || !validPlace(s.Place) {
		return codeSeal{}, errors.New("malformed seal")
	}
	s.Size = int64(size)
	return s, nil
}

// maxPlaceBytes bounds each name of a place.
const maxPlaceBytes = 128

// validPlace accepts what the engine makes: a child's names must lead nowhere
// else.
func validPlace(place [2]string) bool {
	for _, name := range place {
		if len(name) == 0 || len(name) > maxPlaceBytes || name[0] == '.' {
			return false
		}
		for _, c := range []byte(name) {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_+", rune(c)) {
				return false
			}
		}
	}
	return true
}

// codeMAC starts the keyed hash of code.
func codeMAC(secret [32]byte, key codeKey, place [2]string) hash.Hash {
	h := blake3.NewKeyed(secret)
	head := append([]byte(codeContext), key[:]...)
	h.Write(appendString(appendString(head, place[0]), place[1]))
	return h
}

// codeSecret returns the key of the MACs in dir, made if it is not there.
func codeSecret(dir string) (secret [32]byte, err error) {
	path := filepath.Join(dir, "key")
	b, err := os.ReadFile(path)
	switch {
	case err == nil && len(b) == len(secret):
		return [32]byte(b), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return secret, err
	}
	rand.Read(secret[:])
	return secret, disk.WriteFile(path, secret[:], 0o600)
}

// producedCode finds the one file that the engine of a compile child left in
// its staging directory, and opens it. The child may be hostile.
func producedCode(dir string) (f *os.File, place [2]string, size int64, err error) {
	root, err := os.OpenRoot(filepath.Join(dir, codeDir))
	if err != nil {
		return nil, place, 0, err
	}
	defer root.Close()
	at := "."
	for i := range place {
		list, err := fs.ReadDir(root.FS(), at)
		if err != nil {
			return nil, place, 0, err
		}
		if len(list) != 1 {
			return nil, place, 0, fmt.Errorf("%d entries where one was expected", len(list))
		}
		place[i] = list[0].Name()
		at = filepath.Join(place[:i+1]...)
	}
	info, err := root.Lstat(at)
	if err != nil {
		return nil, place, 0, err
	}
	if !info.Mode().IsRegular() || !validPlace(place) || info.Size() == 0 || info.Size() > maxCodeBytes {
		return nil, place, 0, errors.New("not a file of compiled code")
	}
	f, err = root.Open(at)
	return f, place, info.Size(), err
}

// hashFile feeds exactly size bytes of r to h and, if not nil, to w.
func hashFile(h io.Writer, w io.Writer, r io.Reader, size int64) error {
	out := h
	if w != nil {
		out = io.MultiWriter(h, w)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{out}, io.LimitReader(r, size+1), make([]byte, 256<<10))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes, want %d", n, size)
	}
	return err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
