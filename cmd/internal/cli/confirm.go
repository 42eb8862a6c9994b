package cli

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

// confirm asks a yes-or-no question on the terminal. Without one the command
// itself is the confirmation: a script cannot answer.
func (a *app) confirm(question string) error {
	if !isTerminal(a.stdin) {
		return nil
	}
	return a.ask(question)
}

// confirmOrYes is confirm for what hurts others: without a terminal only --yes
// confirms it.
func (a *app) confirmOrYes(question string) error {
	if !isTerminal(a.stdin) {
		return errors.New("not confirmed: there is no terminal to ask on; --yes says that it is meant")
	}
	return a.ask(question)
}

func (a *app) ask(question string) error {
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("not confirmed")
	}
	return nil
}
