package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	controlv1 "gotong/proto/control/v1"
)

const (
	joblogHeader = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand"
	// joblogLineBytes bounds a line of a log that is read.
	joblogLineBytes = 1 << 20
)

// Signals that stand in a log for an end without an exit code, as GNU parallel
// would have seen it.
const (
	signalAbort = 6  // trapped
	signalKill  = 9  // a limit other than time
	signalTerm  = 15 // out of time
)

// joblog is a file with a line for each task that ended, in the columns of GNU
// parallel.
type joblog struct{ file *os.File }

// openJoblog opens a log. With resume it is continued, and skip has the numbers
// of the tasks that it has: all, or with failed only those that succeeded.
// Without, it is begun anew.
func openJoblog(path string, resume, failed bool) (log *joblog, skip map[uint64]bool, err error) {
	if !resume && !failed { // it may be a pipe
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return nil, nil, err
		}
		if _, err := fmt.Fprintln(f, joblogHeader); err != nil {
			f.Close()
			return nil, nil, err
		}
		return &joblog{f}, nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, nil, err
	}
	skip, end, err := readJoblog(f, failed)
	if err == nil {
		// A line that a crash cut off is written again.
		err = errors.Join(f.Truncate(end), seekTo(f, end))
	}
	if err == nil && end == 0 {
		_, err = fmt.Fprintln(f, joblogHeader)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("joblog %s: %w", path, err)
	}
	return &joblog{f}, skip, nil
}

func seekTo(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

// readJoblog returns the tasks of a log that need not run again, and where its
// last whole line ends.
func readJoblog(r io.Reader, failed bool) (skip map[uint64]bool, end int64, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	skip = map[uint64]bool{}
	for number := 1; ; number++ {
		line, err := readLine(in)
		switch {
		case errors.Is(err, io.EOF):
			return skip, end, nil
		case err != nil:
			return nil, 0, err
		}
		end += int64(len(line)) + 1
		if number == 1 {
			if line != joblogHeader {
				return nil, 0, errors.New("it is no log of GNU parallel or gotong: its first line does not name the columns")
			}
			continue
		}
		seq, done, err := parseJoblogLine(line)
		if err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", number, err)
		}
		if failed && !done {
			delete(skip, seq)
		} else {
			skip[seq] = true
		}
	}
}

// readLine returns a line without its end; io.EOF when there is no whole one.
func readLine(in *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return string(line[:len(line)-1]), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		case len(line) > joblogLineBytes:
			return "", fmt.Errorf("a line of more than %d bytes", joblogLineBytes)
		}
	}
}

func parseJoblogLine(line string) (seq uint64, done bool, err error) {
	fields := strings.SplitN(line, "\t", 9)
	if len(fields) < 9 {
		return 0, false, errors.New("it has fewer columns than a log of tasks")
	}
	seq, err = strconv.ParseUint(strings.TrimSpace(fields[0]), 10, 32)
	if err != nil || seq == 0 {
		return 0, false, fmt.Errorf("%q is no number of a task", fields[0])
	}
	exit, err := strconv.Atoi(fields[6])
	if err != nil {
		return 0, false, fmt.Errorf("%q is no exit value", fields[6])
	}
	signal, err := strconv.Atoi(fields[7])
	if err != nil {
		return 0, false, fmt.Errorf("%q is no signal", fields[7])
	}
	return seq, exit == 0 && signal == 0, nil
}

// add writes the line of a task.
func (l *joblog) add(t *controlv1.RunTask, command []string) error {
	exit, signal := int(t.ExitCode), 0
	switch {
	case t.State == "limit" && t.Limit == "wall":
		exit, signal = -1, signalTerm
	case t.State == "limit":
		exit, signal = -1, signalKill
	case t.State == "failed" && exit < 0:
		signal = signalAbort
	}
	host := t.PeerName
	if host == "" {
		host = ":"
	}
	_, err := fmt.Fprintf(l.file, "%d\t%s\t%.3f\t%10.3f\t%d\t%d\t%d\t%d\t%s\n", t.Index+1, printable(host),
		float64(t.StartedMillis)/1000, t.Seconds, t.InputBytes, t.StdoutBytes+uint64(len(t.Stdout)+len(t.Stderr)), exit, signal, shellWords(command))
	return err
}

func (l *joblog) close() error { return l.file.Close() }

// shellWords writes words as a POSIX shell reads them, on one line.
func shellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = shellWord(word)
	}
	return strings.Join(quoted, " ")
}

func shellWord(word string) string {
	if word != "" && strings.IndexFunc(word, shellSpecial) < 0 {
		return word
	}
	if printable(word) != word { // bash, zsh and POSIX 2024
		return "$'" + strings.ReplaceAll(printable(strings.ReplaceAll(word, `\`, `\\`)), "'", `\'`) + "'"
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func shellSpecial(r rune) bool {
	plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:,=+@%", r) || r > 0xa0
	return !plain || printable(string(r)) != string(r)
}
