"""Why did one request go as it did? Pure functions from outcomes and decisions; `hmas why`."""
