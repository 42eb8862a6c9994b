package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gotong/tasks/guests"
)

const (
	batchItems       = 128
	batchCorpusBytes = 16 << 20
	batchShownWords  = 5
	batchWordMin     = 3 // letters; shorter words do not count, as in the guest
	corpusName       = "corpus.txt"
)

// demoBatch is what the batch of the demo did.
type demoBatch struct {
	Tasks   int            `json:"tasks"`
	Done    int            `json:"done"`
	Failed  int            `json:"failed"`
	Retried int            `json:"retried"`
	Seconds float64        `json:"seconds"`
	Bytes   int64          `json:"bytes"`
	Words   uint64         `json:"words"`
	Peers   map[string]int `json:"peers"` // tasks by peer
}

// runBatch counts the words of the backed-up files: the text is cut into
// batchItems slices, each slice is one task on some peer, and the sums are
// compared with a count made here without the grid.
func (d *demo) runBatch(ctx context.Context) error {
	corpus := filepath.Join(d.place, corpusName)
	size, err := writeCorpus(corpus, d.source)
	if err != nil {
		return err
	}
	module := filepath.Join(d.place, guests.Wordcount+".wasm")
	if err := os.WriteFile(module, guests.Module(guests.Wordcount), 0o600); err != nil {
		return err
	}
	args := []string{"run", "--input", corpus, module, "/in/" + corpusName, "{}", strconv.Itoa(batchItems), ":::"}
	for i := range batchItems {
		args = append(args, strconv.Itoa(i))
	}
	batch := &d.report.Batch
	batch.Peers = map[string]int{}
	counts := map[string]uint64{}
	err = d.you.Lines(ctx, func(line []byte) error { return batch.take(line, counts) }, args...)
	if err != nil {
		return err
	}
	batch.Bytes = size
	for _, n := range counts {
		batch.Words += n
	}
	return d.checkBatch(corpus, counts)
}

// take adds one line of the output of run --json.
func (b *demoBatch) take(line []byte, counts map[string]uint64) error {
	var event struct {
		Type, Peer, Stdout, Why string
		State                   string
		Tasks, Done, Failed     int
		Retried                 int
		Seconds                 float64
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return err
	}
	if event.Type == "summary" {
		b.Tasks, b.Done, b.Failed, b.Retried, b.Seconds = event.Tasks, event.Done, event.Failed, event.Retried, event.Seconds
		return nil
	}
	b.Peers[event.Peer]++
	for text := range strings.Lines(event.Stdout) {
		number, word, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return fmt.Errorf("a task printed %q: %w", text, err)
		}
		counts[word] += n
	}
	return nil
}

func (d *demo) checkBatch(corpus string, counts map[string]uint64) error {
	f, err := os.Open(corpus)
	if err != nil {
		return err
	}
	defer f.Close()
	want, err := countWords(f)
	if err != nil {
		return err
	}
	b := d.report.Batch
	if !maps.Equal(want, counts) {
		return &failure{code: exitFailed, what: "the batch counted other words than a count without the grid did"}
	}
	words := slices.SortedFunc(maps.Keys(counts), func(x, y string) int {
		if counts[x] != counts[y] {
			return int(int64(counts[y]) - int64(counts[x]))
		}
		return strings.Compare(x, y)
	})
	var top []string
	for _, word := range words[:min(batchShownWords, len(words))] {
		top = append(top, fmt.Sprintf("%s (%d)", word, counts[word]))
	}
	d.say("5. Ran a batch: %d sandboxed tasks on %d peers counted the words in %s of text in %.1f s (%.0f tasks/s).",
		b.Tasks, len(b.Peers), bytesText(uint64(b.Bytes)), b.Seconds, float64(b.Tasks)/b.Seconds)
	d.say("   %d words, the same as counted here without the grid; most often: %s.", b.Words, strings.Join(top, ", "))
	return nil
}

// writeCorpus joins the text files below dir, up to batchCorpusBytes, and
// returns the size.
func writeCorpus(path, dir string) (int64, error) {
	out, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	var size int64
	walkErr := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // what cannot be read is not counted
		}
		if size >= batchCorpusBytes {
			return filepath.SkipAll
		}
		n, err := appendText(out, path, batchCorpusBytes-size)
		size += n
		return err
	})
	return size, errors.Join(walkErr, out.Close())
}

// appendText copies a file that looks like text, at most limit bytes of it.
func appendText(out io.Writer, path string, limit int64) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, nil // not readable: not counted
	}
	defer f.Close()
	head := make([]byte, 512)
	n, _ := io.ReadFull(f, head) // a short file is a short head
	head = head[:min(int64(n), limit)]
	if bytes.IndexByte(head, 0) >= 0 {
		return 0, nil
	}
	return io.Copy(out, io.MultiReader(bytes.NewReader(head), io.LimitReader(f, limit-int64(len(head)))))
}

// countWords counts as the guest does: runs of ASCII letters in lower case, of
// batchWordMin letters or more.
func countWords(r io.Reader) (map[string]uint64, error) {
	counts := map[string]uint64{}
	in := bufio.NewReaderSize(r, 1<<20)
	var word []byte
	for {
		c, err := in.ReadByte()
		if lower := c | 0x20; err == nil && lower >= 'a' && lower <= 'z' {
			word = append(word, lower)
			continue
		}
		if len(word) >= batchWordMin {
			counts[string(word)]++
		}
		word = word[:0]
		if errors.Is(err, io.EOF) {
			return counts, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
