-- kiln.complain: an error for who calls a script, not for who writes it: a file that is not there, an option that does not exist.
-- It has no line; the executable shows the sentence alone, without a traceback.
local Complaint = { __name = "complaint" }
function Complaint:__tostring() return self.message end

--- complain(format, …): raises the sentence. What pcall catches is an object; tostring gives its text.
return function(format, ...)
  error(setmetatable({ message = format:format(...) }, Complaint), 0)
end
