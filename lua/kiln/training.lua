-- kiln.training: what goes around a training loop. Checkpoints that a run goes on from to the bit, and a log as CSV.
local checkpoint = require "kiln.training.checkpoint"

return {
  save_checkpoint = checkpoint.save,
  load_checkpoint = checkpoint.load,
  CSVLogger = require("kiln.training.csv_logger"),
}
