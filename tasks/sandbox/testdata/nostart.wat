;; A module that is no command.
(module (func (export "run")))
