package benchmarks

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const (
	randomFileMiB   = 64 // size of one file of random data
	filesPerDir     = 12 // of the source-like tree
	smallPerDir     = 500
	medianFileBytes = 3000
	maxFileBytes    = 400_000
	vocabularyWords = 4000
	repeatedLines   = 0.6 // share of lines of a file
)

// writeRandom fills dir with mib MiB that nothing can compress or deduplicate.
func writeRandom(dir string, seed byte, mib int) error {
	source := rand.NewChaCha8([32]byte{seed})
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := 0; mib > 0; i++ {
		size := min(mib, randomFileMiB)
		mib -= size
		if err := writeFrom(filepath.Join(dir, fmt.Sprintf("random-%03d", i)), io.LimitReader(source, int64(size)<<20)); err != nil {
			return err
		}
	}
	return nil
}

// writeRandomFile makes one file of mib MiB that nothing can compress.
func writeRandomFile(path string, seed byte, mib int) error {
	return writeFrom(path, io.LimitReader(rand.NewChaCha8([32]byte{seed}), int64(mib)<<20))
}

// writeFrom makes a file of what r gives.
func writeFrom(path string, r io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// writeSparse makes a file of mib MiB that is a hole but for 1 MiB in 64.
func writeSparse(path string, seed byte, mib int) error {
	source := rand.NewChaCha8([32]byte{seed})
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(mib) << 20)
	for at := 0; at < mib && err == nil; at += 64 {
		_, err = io.Copy(io.NewOffsetWriter(f, int64(at)<<20), io.LimitReader(source, 1<<20))
	}
	return errors.Join(err, f.Close())
}

// writeSources fills dir with files that look like a source tree: many small
// ones in nested directories, of lines of words that repeat.
func writeSources(dir string, seed byte, files int) error {
	random := rand.New(rand.NewChaCha8([32]byte{seed, 1}))
	words := vocabulary(random)
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("area%02d", i/filesPerDir/filesPerDir), fmt.Sprintf("part%02d", i/filesPerDir%filesPerDir))
		if i%filesPerDir == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		size := min(maxFileBytes, int(medianFileBytes*math.Exp(1.3*random.NormFloat64())))
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%d.go", i)), sourceText(random, words, size), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeSmall fills dir with files of some bytes each, no two alike.
func writeSmall(dir string, seed byte, files int) error {
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("%04d", i/smallPerDir))
		if i%smallPerDir == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("small%d", i)), fmt.Appendf(nil, "file %d of %d\n", i, seed), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// vocabulary makes up the words of a tree.
func vocabulary(random *rand.Rand) []string {
	words := make([]string, vocabularyWords)
	for i := range words {
		word := make([]byte, 2+random.IntN(9))
		for j := range word {
			word[j] = byte('a' + random.IntN(26))
		}
		words[i] = string(word)
	}
	return words
}

// sourceText returns size bytes of lines. Some words are frequent, and more than
// half of the lines were there before, as in real text, so that it compresses
// about as well.
func sourceText(random *rand.Rand, words []string, size int) []byte {
	var text bytes.Buffer
	var lines [][2]int // where earlier lines begin and end
	for text.Len() < size {
		begin := text.Len()
		if len(lines) > 0 && random.Float64() < repeatedLines {
			line := lines[random.IntN(len(lines))]
			text.Write(bytes.Clone(text.Bytes()[line[0]:line[1]]))
			continue
		}
		writeLine(&text, random, words)
		lines = append(lines, [2]int{begin, text.Len()})
	}
	return text.Bytes()[:size]
}

// writeLine writes an indented line of words.
func writeLine(text *bytes.Buffer, random *rand.Rand, words []string) {
	for range random.IntN(4) {
		text.WriteByte('\t')
	}
	for range 1 + random.IntN(9) {
		rank := random.Float64()
		text.WriteString(words[int(rank*rank*rank*float64(len(words)))])
		text.WriteByte(" .,(){}="[random.IntN(8)])
	}
	text.WriteByte('\n')
}

// sameTree returns an error naming a file that is not the same in both trees.
func sameTree(want, got string) error {
	a, err := hashes(want)
	if err != nil {
		return err
	}
	b, err := hashes(got)
	if err != nil {
		return err
	}
	if len(a) == 0 || len(a) != len(b) {
		return fmt.Errorf("%d files came back of %d", len(b), len(a))
	}
	for name, sum := range a {
		if b[name] != sum {
			return fmt.Errorf("%s came back different", name)
		}
	}
	return nil
}

// hashes returns the hash of every regular file below dir by name.
func hashes(dir string) (map[string][sha256.Size]byte, error) {
	out := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		out[name] = [sha256.Size]byte(sum.Sum(nil))
		return err
	})
	return out, err
}
